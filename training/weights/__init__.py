"""Pretrained weights: read as data, matched name by name with the network, with the head that the data need."""

from training.weights.origin import read
from training.weights.start import Loaded, build_model, load, show, to_start_from

__all__ = ["Loaded", "build_model", "load", "read", "show", "to_start_from"]
