"""From a store to this machine: remote files, prefetching, preloading."""
