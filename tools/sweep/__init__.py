"""Plan many runs of one YAML, and run them one after another or print their commands."""
