"""Retrieval: embed rows, and search them by text, image, sound or a table's cells."""

from mm.retrieval.embed import EmbeddingReport, embed
from mm.retrieval.index import EmbeddingIndex, Hit
from mm.retrieval.search import SearchReport, embed_query, search

__all__ = ["EmbeddingIndex", "EmbeddingReport", "Hit", "SearchReport", "embed", "embed_query", "search"]
