"""Starting the same command on a cluster: one package per kind of scheduler."""
