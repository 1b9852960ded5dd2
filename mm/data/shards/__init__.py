"""Shards: rows in tar files, which are written once and of which a few at a time are read in training."""
