"""Parameter groups, learning-rate schedule, and gradual unfreezing."""
