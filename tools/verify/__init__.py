"""Verify a data set: compare its splits, recognize ImageNet, sort a flat folder."""
