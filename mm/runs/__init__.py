"""Run folders: who owns them, and what lies in them."""
