__all__ = [
    "Finding",
    "Root",
    "append_file",
    "build_info",
    "chunk_text",
    "count_replacements",
    "edit",
    "file_info",
    "get_file_info",
    "glob_files",
    "hash_file",
    "hash_files",
    "list_directory",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "read_files",
    "read_lines",
    "read_text",
    "replace_file",
    "search_files",
    "search_text",
    "walk",
    "write_file",
    "write_file_atomic",
    "write_file_string",
    "write_files",
    "write_text",
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
def chunk_text(
    text: str, size: int, overlap: int, boundary: str
) -> list[tuple[int, int, int, int, int]]: ...
def count_replacements(
    path: str,
    old: str,
    root: Root | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
) -> int: ...
def edit(
    path: str,
    edits: list[tuple[str, str, bool]],
    modified_ns: int | None,
    sha256: str | None,
    write: bool,
    root: Root | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
) -> tuple[list[list[tuple[int, int, int]]], str, int, int, bool]: ...
def file_info(
    path: str, follow_symlinks: bool, root: Root | None = None
) -> tuple[int, str, int, int, bool, int, int, int, int, int]: ...
def get_file_info(path: str, root: Root | None = None) -> tuple[int, bool, bool]: ...
def glob_files(
    directory: str, pattern: str, gitignore: bool, root: Root | None = None
) -> list[str]: ...
def hash_file(path: str, algorithm: str, root: Root | None = None) -> str: ...
def hash_files(
    paths: list[str], algorithm: str, threads: int | None = None, root: Root | None = None
) -> list[str | Exception]: ...
def list_directory(
    path: str, gitignore: bool, root: Root | None = None
) -> list[tuple[str, str]]: ...
def read_file(path: str, root: Root | None = None, max_bytes: int | None = None) -> bytes: ...
def read_file_lines(
    path: str, root: Root | None = None, max_bytes: int | None = None
) -> list[str]: ...
def read_file_string(path: str, root: Root | None = None, max_bytes: int | None = None) -> str: ...
def read_files(
    paths: list[str],
    max_bytes: int | None = None,
    threads: int | None = None,
    root: Root | None = None,
) -> list[bytes | Exception]: ...
def read_lines(
    path: str,
    start: int,
    count: int | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
    root: Root | None = None,
) -> tuple[str, int, int, bool, str]: ...
def read_text(
    path: str,
    encoding: str | None = None,
    max_bytes: int | None = None,
    root: Root | None = None,
) -> tuple[str, str, str | None, int, int]: ...
def replace_file(
    path: str,
    content: bytes,
    modified_ns: int | None = None,
    sha256: str | None = None,
    root: Root | None = None,
) -> None: ...
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
def write_files(
    items: list[tuple[str, bytes]],
    atomic: bool,
    threads: int | None = None,
    root: Root | None = None,
) -> list[Exception | None]: ...
def write_text(
    path: str,
    text: str,
    encoding: str | None,
    endings: str | None,
    modified_ns: int | None = None,
    sha256: str | None = None,
    root: Root | None = None,
) -> tuple[int, int, str]: ...
