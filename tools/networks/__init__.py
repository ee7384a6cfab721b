"""Trained networks as programs use them: uint8 images in, probabilities out."""
