"""From bytes on disk or in S3 to a batch: decode, crop, augment, collate. Independent of recipes."""
