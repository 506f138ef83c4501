"""From scans, masks and reports on disk to batches."""
