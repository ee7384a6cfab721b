"""Bytes on disk or S3 to a batch: decode, crop, augment, collate. Knows nothing of recipes."""
