"""Parameter-efficient fine-tuning with adapters of the peft library."""
