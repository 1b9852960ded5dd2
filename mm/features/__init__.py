"""Features of frozen encoders, computed once and read from memory-mapped files."""
