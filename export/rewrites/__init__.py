"""Graphs that compute the same in another way: what nobody reads left out, and shapes that an engine is quick with."""
