"""Convert data sets: read a source, cut it into shards, and write them in worker processes."""
