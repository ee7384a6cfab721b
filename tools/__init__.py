"""Programs beside training, each `python -m tools.NAME`."""
