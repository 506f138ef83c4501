"""Causal language models and their decoding."""
