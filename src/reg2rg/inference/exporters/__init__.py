"""Exporters: a result goes in, files come out. `reg2rg.show.page_exporter` has another one, `Page`."""

from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.exporters.dicom import PDF, SEG, MeasurementSR, TextSR
from reg2rg.inference.exporters.fhir import FHIR
from reg2rg.inference.exporters.json_file import JSON

__all__ = ["EXPORTERS", "FHIR", "JSON", "PDF", "SEG", "Exporter", "MeasurementSR", "TextSR"]
