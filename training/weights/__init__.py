"""Pretrained weights: read as data, matched name by name with the network, with the head that the data need."""

from training.weights.origin import read
from training.weights.start import load, show

__all__ = ["load", "read", "show"]
