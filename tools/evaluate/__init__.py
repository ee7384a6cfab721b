"""Evaluate a run's checkpoint image by image, and write its figures."""
