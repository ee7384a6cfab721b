"""Bytes to pixels: decoders, the crop's box, transforms."""
