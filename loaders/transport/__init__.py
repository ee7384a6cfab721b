"""From a store to this machine: remote files, the shard cache, prefetching, preloading."""
