"""Scores of reports: pure functions over texts."""
