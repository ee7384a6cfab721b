"""Our own Composer loggers, found by file name as in recipes/algorithms."""
