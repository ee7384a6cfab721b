"""From bytes to pixels: decoders, crop boxes, transforms."""
