"""Phantoms, a tiny language model, word alignment, other systems, converters of weights: our own first plug-in.

Registered through the entry points that every plug-in has, and imported by nobody: without this folder the rest
still trains, predicts and scores.
"""
