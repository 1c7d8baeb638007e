"""Data files that people write: TOML, YAML, JSON5, JSON, JSONL; an error names file and line."""

from __future__ import annotations

from vespera_server.documents.errors import DocumentError
from vespera_server.documents.reading import FORMATS, Document, read_document

__all__ = ["FORMATS", "Document", "DocumentError", "read_document"]
