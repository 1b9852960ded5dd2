"""Fixtures of tables: see tests/tables.py."""

from tables import make, shared, transforms

__all__ = ["make", "shared", "transforms"]
