"""DICOM objects of a result: segmentation, reports for people and for programs, a PDF.

Needs the extra ``reg2rg[dicom]`` and a scan that is a DICOM series, whose patient, study and grid they take over.
"""
