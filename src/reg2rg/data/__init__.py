"""From prepared studies to batches: prompts, order, samples, the datamodule."""
