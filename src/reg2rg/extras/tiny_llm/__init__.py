"""A tiny language model made from report text, for demos and tests. Read `build` first."""
