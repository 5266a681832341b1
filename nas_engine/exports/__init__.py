"""Trained networks as files, each loaded back as a user would and compared with the network before it counts."""

from nas_engine.exports.manifest import ExportedFile
from nas_engine.exports.network import FORMATS, export_network, export_one

__all__ = ["FORMATS", "ExportedFile", "export_network", "export_one"]
