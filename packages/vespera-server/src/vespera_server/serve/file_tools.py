"""Responsible for the tools that read, list, write and edit files beneath the roots.

Every path goes through a ``Workspace``.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

import vespera_file_ops
from vespera_file_ops import FileTooLarge, TextFile
from vespera_server.serve.answers import Answer
from vespera_server.serve.file_work import FilePath, WorkOf
from vespera_server.serve.policy import Policy
from vespera_server.serve.search_tool import add_search_tool
from vespera_server.serve.tool import StructuredServer, add_tool

__all__ = ["add_file_tools"]

T = TypeVar("T")

Expect = Annotated[
    int | None, Field(description="mtime_ns that the file must have: nobody wrote it meanwhile.")
]
Limit = Annotated[int, Field(description="At most so many.", ge=1, le=10_000)]


class ReadAnswer(Answer):
    path: str | None = None
    text: str | None = Field(default=None, description="The lines asked for, endings included.")
    first_line: int | None = None
    lines: int | None = Field(default=None, description="How many lines `text` holds.")
    total_lines: int | None = Field(default=None, description="How many lines the file has.")
    size: int | None = Field(default=None, description="Bytes of the whole file.")
    mtime_ns: int | None = Field(
        default=None, description="Time of change; good as `expect` of a write or an edit."
    )
    more: bool | None = Field(default=None, description="Whether lines follow.")


class WriteAnswer(Answer):
    path: str | None = None
    size: int | None = Field(default=None, description="Bytes of the file now.")
    mtime_ns: int | None = Field(
        default=None, description="Time of change; good as `expect` of the next write or edit."
    )


class EditAnswer(Answer):
    path: str | None = None
    replacements: int | None = None
    diff: str | None = Field(default=None, description="Unified diff of what changed.")
    size: int | None = Field(default=None, description="Bytes of the file now.")
    mtime_ns: int | None = Field(
        default=None, description="Time of change; good as `expect` of the next write or edit."
    )


class FileRow(BaseModel):
    path: str
    kind: str = Field(description="file, directory, symlink or other.")


class ListFilesAnswer(Answer):
    directory: str | None = None
    files: list[FileRow] = Field(default_factory=list)
    more: bool | None = Field(default=None, description="Whether there are more than these.")


class InfoAnswer(Answer):
    path: str | None = None
    size: int | None = Field(default=None, description="Bytes.")
    is_file: bool | None = None
    is_directory: bool | None = None
    sha256: str | None = None


def add_file_tools(server: StructuredServer, policy: Policy, work_of: WorkOf) -> None:
    """Register them; those that write only where the operator allows it."""
    _add_readers(server, policy, work_of)
    add_search_tool(server, policy, work_of)
    if not policy.options.read_only:
        _add_writers(server, policy, work_of)


def _add_readers(server: StructuredServer, policy: Policy, work_of: WorkOf) -> None:
    options, places = policy.options, policy.places

    async def read_file(
        ctx: Context[Any, Any],
        path: FilePath,
        first_line: Annotated[int, Field(description="Counted from 1.", ge=1)] = 1,
        lines: Annotated[int, Field(description="At most so many.", ge=1, le=1_000_000)] = 2000,
    ) -> ReadAnswer:
        """Read lines of a text file (UTF-8, or UTF-16 with a byte order mark)."""
        place = places.find(path)

        def read() -> TextFile:
            return place.workspace.read_text(place.path, max_bytes=options.largest_file)

        file = await work_of(ctx).do(read)
        every = _lines(file.text)
        chosen = every[first_line - 1 : first_line - 1 + lines]
        shown = _fitting(chosen, options.largest_answer)
        return ReadAnswer(
            success=True,
            backend=vespera_file_ops.backend(),
            path=place.shown,
            text="".join(shown),
            first_line=first_line,
            lines=len(shown),
            total_lines=len(every),
            size=file.size,
            mtime_ns=file.mtime_ns,
            more=first_line - 1 + len(shown) < len(every),
        )

    async def list_files(
        ctx: Context[Any, Any],
        directory: FilePath = ".",
        pattern: Annotated[
            str | None,
            Field(
                description="A glob such as '**/*.py': files beneath that match, not one level.",
                max_length=1024,
                examples=["**/*.py"],
            ),
        ] = None,
        limit: Limit = 1000,
    ) -> ListFilesAnswer:
        """What is in a directory, or which files beneath it match a pattern."""
        place = places.find(directory)

        def entries() -> list[FileRow]:
            found = place.workspace.list_directory(place.path)
            return [FileRow(path=entry.name, kind=entry.kind) for entry in found]

        def matches() -> list[FileRow]:
            found = place.workspace.glob_files(place.path, pattern or "")
            return [FileRow(path=name, kind="file") for name in found]

        rows = await work_of(ctx).do(entries if pattern is None else matches)
        shown = rows[:limit]
        return ListFilesAnswer(
            success=True,
            backend=vespera_file_ops.backend(),
            directory=place.shown,
            files=_fitting(shown, options.largest_answer),
            more=len(rows) > len(shown),
        )

    async def file_info(
        ctx: Context[Any, Any],
        path: FilePath,
        hash: Annotated[bool, Field(description="Whether to compute the SHA-256.")] = False,
    ) -> InfoAnswer:
        """What a path leads to: its kind and size, on demand its hash."""
        place = places.find(path)

        def look() -> InfoAnswer:
            info = place.workspace.file_info(place.path)
            digest = place.workspace.hash_file(place.path) if hash and info.is_file else None
            return InfoAnswer(
                success=True,
                backend=vespera_file_ops.backend(),
                path=place.shown,
                size=info.size,
                is_file=info.is_file,
                is_directory=info.is_dir,
                sha256=digest,
            )

        return await work_of(ctx).do(look)

    def add(function: Any, answer: Any, title: str) -> None:
        add_tool(server, function, answer, policy.redactor, title=title, read_only=True)

    add(read_file, ReadAnswer, "Read a file")
    add(list_files, ListFilesAnswer, "List files")
    add(file_info, InfoAnswer, "About a file")


def _add_writers(server: StructuredServer, policy: Policy, work_of: WorkOf) -> None:
    options, places = policy.options, policy.places

    async def write_file(
        ctx: Context[Any, Any],
        path: FilePath,
        text: Annotated[str, Field(description="The whole content.")],
        expect: Expect = None,
    ) -> WriteAnswer:
        """Write a text file: the old content or the new is there at any moment, never a mixture.

        The directory must exist. A file that is there keeps its encoding and its line endings.
        """
        place = places.find(path)
        _refuse_large(len(text.encode("utf-8", "surrogatepass")), path, options.largest_file)
        done = await work_of(ctx).do(
            lambda: place.workspace.write_text(place.path, text, expect=expect)
        )
        return WriteAnswer(
            success=True,
            backend=vespera_file_ops.backend(),
            path=place.shown,
            size=done.size,
            mtime_ns=done.mtime_ns,
        )

    async def edit_file(
        ctx: Context[Any, Any],
        path: FilePath,
        old: Annotated[str, Field(description="The text to replace, exactly.", min_length=1)],
        new: Annotated[str, Field(description="What stands there afterwards.")],
        replace_all: Annotated[
            bool, Field(description="Whether `old` may stand there more than once.")
        ] = False,
        expect: Expect = None,
    ) -> EditAnswer:
        """Replace text in a file. `old` must stand there exactly once, unless `replace_all`."""
        place = places.find(path)

        def edit() -> EditAnswer:
            _refuse_large(place.workspace.file_info(place.path).size, path, options.largest_file)
            done = place.workspace.edit_file(
                place.path, old, new, replace_all=replace_all, expect=expect
            )
            return EditAnswer(
                success=True,
                backend=vespera_file_ops.backend(),
                path=place.shown,
                replacements=done.replacements,
                diff=done.diff[: options.largest_answer],
                size=done.size,
                mtime_ns=done.mtime_ns,
            )

        return await work_of(ctx).do(edit)

    def add(function: Any, answer: Any, title: str) -> None:
        add_tool(server, function, answer, policy.redactor, title=title, destructive=True)

    add(write_file, WriteAnswer, "Write a file")
    add(edit_file, EditAnswer, "Edit a file")


def _refuse_large(size: int, path: str, largest: int) -> None:
    if size > largest:
        raise FileTooLarge(
            f"{path[:200]}: {size} bytes are more than this server takes ({largest})",
            context={"remedy": "ask the operator to raise --largest-file"},
        )


def _lines(text: str) -> list[str]:
    """Lines as editors count them: only a newline ends one, U+2028 does not."""
    parts = text.split("\n")
    lines = [f"{part}\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _fitting(items: list[T], largest: int) -> list[T]:
    """As many of the first items as an answer may hold."""
    for number, item in enumerate(items):
        text = item if isinstance(item, str) else str(getattr(item, "path", item))
        largest -= len(text.encode("utf-8", "surrogatepass")) + 32
        if largest < 0:
            return items[: max(number, 1)] if not isinstance(item, str) else items[:number]
    return items
