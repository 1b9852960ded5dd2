"""Shards: tar files of rows. They are written once, and training reads a few of them at a time."""
