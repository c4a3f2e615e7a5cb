"""Samples in memory or on demand, and which of them each training step takes."""
