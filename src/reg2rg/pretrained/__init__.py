"""Models as folders: safetensors, a config, the input they were made for, and a card."""
