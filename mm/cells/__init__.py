"""What a cell of a table says: its text, the number or the class that the text is."""

from mm.cells.text import distinct, distinct_texts, label_of, text_fault, text_of, undecodable

__all__ = ["distinct", "distinct_texts", "label_of", "text_fault", "text_of", "undecodable"]
