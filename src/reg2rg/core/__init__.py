"""What everything else stands on: types, errors, files, registries, regions, report text.

Read `types` first. Nothing here needs torch, but for `progress`, which needs rich.
"""
