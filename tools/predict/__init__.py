"""Classify images with a trained network."""
