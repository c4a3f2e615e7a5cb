"""What a student is held against its teachers by; `edgessl.distill` is the training."""
