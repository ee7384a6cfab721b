"""Our own Composer callbacks, found by file name as in recipes/algorithms."""
