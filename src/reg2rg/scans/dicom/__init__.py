"""DICOM: a scanner's folder, the right series of it as one volume, and regions from SEG and RTSTRUCT.

Everything is placed by positions in the patient, nothing by order of files or numbers. pydicom is imported when a DICOM
file is read, not before.
"""
