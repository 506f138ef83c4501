"""DICOM objects of a result: segmentation, reports for people and for programs, a PDF.

Needs the extra ``reg2rg[dicom]`` and a scan that is a DICOM series, whose patient, study and grid they take over.
"""

from reg2rg.inference.exporters.dicom.measurement_report import MeasurementSR
from reg2rg.inference.exporters.dicom.pdf import PDF
from reg2rg.inference.exporters.dicom.segmentation import SEG
from reg2rg.inference.exporters.dicom.text_report import TextSR

__all__ = ["PDF", "SEG", "MeasurementSR", "TextSR"]
