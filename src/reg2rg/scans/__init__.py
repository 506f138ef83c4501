"""A scan and its masks from files: NIfTI read to its last byte, placed, checked, brought to RAS.

In go paths, out come a `Volume` and the masks of its regions on the same grid. Read `volumes` first, then `masks`.
"""
