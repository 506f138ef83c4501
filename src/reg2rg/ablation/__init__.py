"""Sweeps of ablations: runs x seeds, trained, scored and compared in one table."""
