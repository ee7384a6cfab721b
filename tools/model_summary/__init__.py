"""List the layers of the network that a run would train."""
