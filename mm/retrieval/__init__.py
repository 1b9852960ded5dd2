"""Retrieval: embedding of the rows of a data set, and search with a text, an image, a sound or cells of a table."""

from mm.retrieval.embed import EmbeddingReport, embed
from mm.retrieval.index import EmbeddingIndex, Hit
from mm.retrieval.search import SearchReport, embed_query, search

__all__ = ["EmbeddingIndex", "EmbeddingReport", "Hit", "SearchReport", "embed", "embed_query", "search"]
