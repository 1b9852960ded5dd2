"""How fast training runs and what it waits for, its FLOPs and memory, and the largest batch that fits."""
