"""Parameter-efficient fine-tuning: adapters of the peft library."""
