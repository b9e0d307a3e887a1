"""Feedback from files and to files, in the formats that other tools write and read."""

from feedback.formats.exporting import EXPORTS, ExportResult, export_version
from feedback.formats.importing import IMPORTS, ImportResult, import_file

__all__ = ["EXPORTS", "IMPORTS", "ExportResult", "ImportResult", "export_version", "import_file"]
