"""Run folders: their ownership, and the files in them."""
