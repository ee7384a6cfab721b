"""Programs other than training, each `python -m tools.NAME`."""
