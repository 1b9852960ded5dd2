"""Tables of raw inputs and targets: read, probed, split, sampled, mixed, sharded, and batched."""
