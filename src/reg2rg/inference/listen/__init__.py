"""A DICOM node that reports on what it is sent: ``reg2rg listen``."""
