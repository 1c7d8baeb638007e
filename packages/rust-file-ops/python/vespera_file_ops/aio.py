"""The functions of ``vespera_file_ops`` for asyncio: the same names, arguments, results and errors.

Each call runs in a thread of a pool of its own, so the loop goes on meanwhile, and most of the work
runs without the interpreter. When the caller is cancelled:

- a call that has not begun never begins;
- one that only reads is left to itself, and its result is dropped;
- one that writes is waited for, so that nothing changes the file once the cancellation was seen.
  Then the file holds what the call left: old or new, as that function promises;
- one that waits for a file that somebody else has locked ends at once and writes nothing
  more. It is the loop that waits: no thread is taken from the calls on other files.

``walk``, ``search_files`` and ``count_matches`` are not awaited: each gives an ``AsyncFound``, the
asynchronous iterator of what is found.

>>> import asyncio, os, tempfile
>>> from vespera_file_ops import aio
>>> async def main():
...     path = os.path.join(tempfile.mkdtemp(), "note.txt")
...     await aio.write_file_atomic(path, "one\\ntwo\\n")
...     return await aio.read_file_lines(path)
>>> asyncio.run(main())
['one', 'two']
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from vespera_file_ops import api
from vespera_file_ops._arguments import FilePath
from vespera_file_ops._async_finding import AsyncFound
from vespera_file_ops._finding import Found
from vespera_file_ops._operations import WRITERS, WorkspaceOperations
from vespera_file_ops._threads import run

__all__ = [
    "AsyncFound",
    "Workspace",
    "append_file",
    "chunk_text",
    "count_matches",
    "count_replacements",
    "edit_file",
    "file_info",
    "get_file_info",
    "glob_files",
    "hash_file",
    "hash_files",
    "list_directory",
    "multi_edit_file",
    "preview_edit",
    "preview_multi_edit",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "read_files",
    "read_lines",
    "read_text",
    "search_files",
    "search_text",
    "walk",
    "write_file",
    "write_file_atomic",
    "write_file_string",
    "write_files",
    "write_text",
]

P = ParamSpec("P")
R = TypeVar("R")


def _twin(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The function for asyncio."""
    writes = function.__name__ in WRITERS

    @functools.wraps(function)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        return await run(functools.partial(function, *args, **kwargs), writes=writes)

    return twin


def _method(
    method: Callable[Concatenate[WorkspaceOperations, P], R],
) -> Callable[Concatenate[Workspace, P], Coroutine[Any, Any, R]]:
    """The method of a workspace for asyncio."""
    writes = method.__name__ in WRITERS

    @functools.wraps(method)
    async def twin(self: Workspace, /, *args: P.args, **kwargs: P.kwargs) -> R:
        work = functools.partial(method, self.synchronous, *args, **kwargs)
        return await run(work, writes=writes)

    return twin


def _finder(function: Callable[P, Found[R]]) -> Callable[P, AsyncFound[R]]:
    """The function that finds, for asyncio."""

    @functools.wraps(function)
    def twin(*args: P.args, **kwargs: P.kwargs) -> AsyncFound[R]:
        return AsyncFound(functools.partial(function, *args, **kwargs))

    return twin


def _finding_method(
    method: Callable[Concatenate[WorkspaceOperations, P], Found[R]],
) -> Callable[Concatenate[Workspace, P], AsyncFound[R]]:
    """The method of a workspace that finds, for asyncio."""

    @functools.wraps(method)
    def twin(self: Workspace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncFound[R]:
        return AsyncFound(functools.partial(method, self.synchronous, *args, **kwargs))

    return twin


append_file = _twin(api.append_file)
chunk_text = _twin(api.chunk_text)
count_matches = _finder(api.count_matches)
count_replacements = _twin(api.count_replacements)
edit_file = _twin(api.edit_file)
file_info = _twin(api.file_info)
get_file_info = _twin(api.get_file_info)
glob_files = _twin(api.glob_files)
hash_file = _twin(api.hash_file)
hash_files = _twin(api.hash_files)
list_directory = _twin(api.list_directory)
multi_edit_file = _twin(api.multi_edit_file)
preview_edit = _twin(api.preview_edit)
preview_multi_edit = _twin(api.preview_multi_edit)
read_file = _twin(api.read_file)
read_file_lines = _twin(api.read_file_lines)
read_file_string = _twin(api.read_file_string)
read_files = _twin(api.read_files)
read_lines = _twin(api.read_lines)
read_text = _twin(api.read_text)
search_files = _finder(api.search_files)
search_text = _twin(api.search_text)
walk = _finder(api.walk)
write_file = _twin(api.write_file)
write_file_atomic = _twin(api.write_file_atomic)
write_file_string = _twin(api.write_file_string)
write_files = _twin(api.write_files)
write_text = _twin(api.write_text)


class Workspace:
    """``vespera_file_ops.Workspace`` for asyncio: the same methods, to be awaited or iterated.

    Opening the root is one system call and is done at once. ``synchronous`` is the workspace
    behind it, of the module's backend or the one that is given instead of a path.
    """

    def __init__(self, root: FilePath | WorkspaceOperations, read_only: bool = False) -> None:
        if isinstance(root, WorkspaceOperations):
            self.synchronous = root
        else:
            self.synchronous = api.Workspace(root, read_only)

    @property
    def root(self) -> str:
        """The path of the root as it was given."""
        return self.synchronous.root

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self.synchronous.read_only

    def __repr__(self) -> str:
        return f"aio.{self.synchronous!r}"

    append_file = _method(WorkspaceOperations.append_file)
    chunk_text = _method(WorkspaceOperations.chunk_text)
    count_matches = _finding_method(WorkspaceOperations.count_matches)
    count_replacements = _method(WorkspaceOperations.count_replacements)
    edit_file = _method(WorkspaceOperations.edit_file)
    file_info = _method(WorkspaceOperations.file_info)
    get_file_info = _method(WorkspaceOperations.get_file_info)
    glob_files = _method(WorkspaceOperations.glob_files)
    hash_file = _method(WorkspaceOperations.hash_file)
    hash_files = _method(WorkspaceOperations.hash_files)
    list_directory = _method(WorkspaceOperations.list_directory)
    multi_edit_file = _method(WorkspaceOperations.multi_edit_file)
    preview_edit = _method(WorkspaceOperations.preview_edit)
    preview_multi_edit = _method(WorkspaceOperations.preview_multi_edit)
    read_file = _method(WorkspaceOperations.read_file)
    read_file_lines = _method(WorkspaceOperations.read_file_lines)
    read_file_string = _method(WorkspaceOperations.read_file_string)
    read_files = _method(WorkspaceOperations.read_files)
    read_lines = _method(WorkspaceOperations.read_lines)
    read_text = _method(WorkspaceOperations.read_text)
    search_files = _finding_method(WorkspaceOperations.search_files)
    search_text = _method(WorkspaceOperations.search_text)
    walk = _finding_method(WorkspaceOperations.walk)
    write_file = _method(WorkspaceOperations.write_file)
    write_file_atomic = _method(WorkspaceOperations.write_file_atomic)
    write_file_string = _method(WorkspaceOperations.write_file_string)
    write_files = _method(WorkspaceOperations.write_files)
    write_text = _method(WorkspaceOperations.write_text)
