"""Moving data from a store to this machine: remote files, the shard cache, prefetching and preloading."""
