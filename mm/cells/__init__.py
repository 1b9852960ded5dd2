"""Conversion of the cells of a table to texts, numbers and classes."""

from mm.cells.text import distinct, distinct_texts, label_of, text_fault, text_of, undecodable

__all__ = ["distinct", "distinct_texts", "label_of", "text_fault", "text_of", "undecodable"]
