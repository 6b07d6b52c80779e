"""The version, for manifests and feature folders: importable without the house."""

__version__ = "0.2.0"
