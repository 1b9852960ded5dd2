"""Profiling of training: speed and bottleneck, FLOPs, memory, and the largest batch size that fits in memory."""
