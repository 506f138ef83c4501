"""Every fault of a data folder in one run, as a table, JSON and pictures. Read `run` first."""
