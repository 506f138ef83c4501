"""Reading configs: overlays folded, errors explained, the resolved config kept in checkpoints."""
