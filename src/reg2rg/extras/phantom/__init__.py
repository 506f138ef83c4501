"""Synthetic chest CTs with region masks, reports and truth labels."""
