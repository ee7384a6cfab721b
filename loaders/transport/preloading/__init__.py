"""Parts of `preload`: listing a source, copying its files, and the records of a copy."""
