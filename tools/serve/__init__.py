"""Serve a trained network to a browser and to programs."""
