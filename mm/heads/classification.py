"""Head for targets with one of several classes per row."""

from mm.heads._classifying import PooledClassifier


class ClassificationHead(PooledClassifier):
    """Predict one of several classes per row. For the arguments, see `PooledClassifier`."""
