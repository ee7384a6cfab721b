"""How `preload` works: what a source holds, copying it, the records of a copy, and the other ranks' waiting."""
