"""The parts of `python -m tools.convert`: what is read, how it is cut into shards, who does the work, where it goes."""
