"""Evidence: what the suite is compared with. Nothing here is needed to train."""
