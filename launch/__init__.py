"""Launchers: `composer` for the ranks of a node, and a package per cluster scheduler."""
