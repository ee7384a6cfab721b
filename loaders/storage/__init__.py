"""Storage kinds: one module each."""
