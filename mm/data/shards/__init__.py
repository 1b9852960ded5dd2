"""Rows in tar files: written once, read a few shards at a time."""
