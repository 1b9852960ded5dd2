"""One of several classes."""

from mm.heads._classifying import PooledClassifier


class ClassificationHead(PooledClassifier):
    """Which of the classes a row is of. The arguments are PooledClassifier's."""
