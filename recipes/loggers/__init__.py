"""Composer loggers of our own, each found by the name of its file, as in recipes/algorithms."""
