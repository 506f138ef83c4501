"""Evaluation: text files of reports in, numbers with a protocol, an interval and a floor out. Needs no model."""
