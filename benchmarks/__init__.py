"""Benchmarks against other libraries and hand-written loops; not needed for training."""
