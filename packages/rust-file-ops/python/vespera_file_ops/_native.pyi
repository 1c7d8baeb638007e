__all__ = [
    "Finding",
    "Root",
    "append_file",
    "build_info",
    "count_replacements",
    "edit",
    "get_file_info",
    "glob_files",
    "hash_file",
    "list_directory",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "search_files",
    "search_text",
    "walk",
    "write_file",
    "write_file_atomic",
    "write_file_string",
]

from typing import Any, final

from vespera_file_ops._finding import Query, Selection
from vespera_file_ops.results import Match

@final
class Finding:
    def next_batch(self) -> list[Any] | None: ...
    def problems(self) -> tuple[list[tuple[int, str]], int]: ...
    def close(self) -> None: ...

@final
class Root:
    def __new__(cls, path: str) -> Root: ...

def append_file(path: str, content: str, root: Root | None = None) -> None: ...
def build_info() -> dict[str, str]: ...
def count_replacements(path: str, old: str, root: Root | None = None) -> int: ...
def edit(
    path: str,
    edits: list[tuple[str, str, bool]],
    modified_ns: int | None,
    sha256: str | None,
    write: bool,
    root: Root | None = None,
) -> tuple[list[list[tuple[int, int, int]]], str, int, int]: ...
def get_file_info(path: str, root: Root | None = None) -> tuple[int, bool, bool]: ...
def glob_files(
    directory: str, pattern: str, gitignore: bool, root: Root | None = None
) -> list[str]: ...
def hash_file(path: str, algorithm: str, root: Root | None = None) -> str: ...
def list_directory(
    path: str, gitignore: bool, root: Root | None = None
) -> list[tuple[str, str]]: ...
def read_file(path: str, root: Root | None = None) -> bytes: ...
def read_file_lines(path: str, root: Root | None = None) -> list[str]: ...
def read_file_string(path: str, root: Root | None = None) -> str: ...
def search_files(
    directory: str,
    query: Query,
    selection: Selection,
    binary: bool,
    max_size: int | None,
    root: Root | None = None,
) -> Finding: ...
def search_text(text: bytes, query: Query, limit: int | None) -> list[Match]: ...
def walk(directory: str, selection: Selection, root: Root | None = None) -> Finding: ...
def write_file(path: str, content: bytes, root: Root | None = None) -> None: ...
def write_file_atomic(path: str, content: str, root: Root | None = None) -> None: ...
def write_file_string(path: str, content: str, root: Root | None = None) -> None: ...
