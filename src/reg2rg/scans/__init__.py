"""A scan and its masks from files: read to the last byte, placed, checked, brought to RAS.

In go paths, out come a `Volume` and the masks of its regions on the same grid, or the scan alone. Read `read` first: it
conducts. `nifti` and `nrrd` open one kind of file each, `hounsfield` makes HU of it, `masks` and `placement` bring
masks onto its grid; `find_masks` and `segmenters` say where masks are.
"""
