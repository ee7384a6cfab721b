"""Composer callbacks of our own, found by the name of their file, as recipes/algorithms."""
