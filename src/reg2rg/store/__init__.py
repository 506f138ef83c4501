"""Prepared studies: cropped, viewed, packed into one checked file each.

In go scans with their regions, out come views for the encoders. Read `views` first, then `store` and `prepare`.
"""
