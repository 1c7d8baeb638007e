"""Responsible for the module functions: one documented signature each, done by the chosen backend.

Paths are ``str``, ``bytes`` or ``os.PathLike``. Every function acts on regular files only: a
directory raises ``IsADirectoryError``, a FIFO, socket or device an ``OSError`` (``ENXIO``,
``ENODEV``) at once, so that nothing ever hangs. Symlinks are followed. What the system refuses is
an ``OSError`` subclass with ``errno`` and ``filename``.
"""

from __future__ import annotations

from collections.abc import Sequence

from vespera_file_ops._arguments import FilePath
from vespera_file_ops._finding import Case, Found, Names
from vespera_file_ops._operations import WorkspaceOperations
from vespera_file_ops.backends import BackendName, choose
from vespera_file_ops.results import (
    DirectoryEntry,
    EditResult,
    FileCount,
    FileInfo,
    Match,
    WalkEntry,
)

__all__ = [
    "Workspace",
    "append_file",
    "backend",
    "count_matches",
    "count_replacements",
    "edit_file",
    "file_info",
    "get_file_info",
    "glob_files",
    "hash_file",
    "list_directory",
    "multi_edit_file",
    "preview_edit",
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

_name, _chosen = choose()


def backend() -> BackendName:
    """Return which backend the functions of this module use: ``"rust"`` or ``"python"``."""
    return _name


def read_file(path: FilePath) -> bytes:
    """Return the whole content of a regular file."""
    return _chosen.read_file(path)


def read_file_string(path: FilePath) -> str:
    """Return the whole content as text.

    The file must be UTF-8: ``EncodingError`` (a ``ValueError``) names the first byte that is not.
    A byte order mark and all line endings stay as they are.
    """
    return _chosen.read_file_string(path)


def read_file_lines(path: FilePath) -> list[str]:
    r"""Return the lines of a UTF-8 file without their endings (``\n`` or ``\r\n``).

    Nothing else ends a line (no form feed, no lone ``\r``), and a final newline opens no further,
    empty line. Not UTF-8: ``EncodingError``.
    """
    return _chosen.read_file_lines(path)


def write_file(path: FilePath, content: bytes | bytearray | memoryview) -> None:
    """Write ``content`` in place, creating the file if it is missing.

    Inode, owner, mode and hard links stay. Room is reserved first: where the disk is full or a
    size limit is met, the old content stays and a new file does not appear. A crash in the middle
    may leave a mixture; ``write_file_atomic`` does not.
    """
    _chosen.write_file(path, content)


def write_file_string(path: FilePath, content: str) -> None:
    """Write text as UTF-8, as ``write_file`` does; line endings are not translated."""
    _chosen.write_file_string(path, content)


def append_file(path: FilePath, content: str) -> None:
    """Add text as UTF-8 at the end, creating the file if it is missing.

    One ``O_APPEND`` write, so several writers do not tear each other's lines. What a full disk cut
    short is taken back.
    """
    _chosen.append_file(path, content)


def write_file_atomic(path: FilePath, content: str) -> None:
    """Replace the content so that readers, and a crash, see the old or the new content whole.

    A temporary file beside the target (``.vespera-….tmp``) is written, forced to disk and renamed;
    the directory is forced to disk too. What a writer that was killed left there is removed by the
    next write of the same file. The mode is kept, the owner where the system allows it; a
    symlink is written through. Hard links to the old content keep the old content. It is the
    directory that must be writable.
    """
    _chosen.write_file_atomic(path, content)


def glob_files(directory: FilePath, pattern: str, *, gitignore: bool = False) -> list[str]:
    r"""Return the regular files beneath ``directory`` whose relative path matches ``pattern``.

    Each is ``directory`` as given, joined with the path beneath it; the list is sorted by bytes.

    ======== =====================================================================
    ``*``    any characters of one name (also none, also a leading dot)
    ``?``    one character
    ``[a-z]`` one of these; ``[!a-z]`` or ``[^a-z]`` one other
    ``**``   between slashes: any number of directories; at the end: all files beneath
    ``{a,b}`` either; may be nested and hold slashes
    ``\x``   the character ``x`` itself
    ======== =====================================================================

    Case counts. Symlinks to files are found, symlinked directories are not entered, directories
    that vanish or may not be read are left out. ``gitignore`` leaves out what git would, as in
    ``walk``. ``PatternError`` (a ``ValueError``) for a pattern that is empty, absolute, holds
    ``..``, ends with ``/`` or does not close what it opens.
    """
    return _chosen.glob_files(directory, pattern, gitignore=gitignore)


def get_file_info(path: FilePath) -> tuple[int, bool, bool]:
    """Return ``(size in bytes, is_file, is_dir)``, symlinks followed; nothing is opened."""
    return _chosen.get_file_info(path)


def file_info(path: FilePath) -> FileInfo:
    """Return what the path leads to, symlinks followed; nothing is opened for reading."""
    return _chosen.file_info(path)


def edit_file(
    path: FilePath,
    old: str,
    new: str,
    *,
    replace_all: bool = False,
    expect: str | int | None = None,
) -> EditResult:
    r"""Replace ``old`` by ``new`` in a UTF-8 file, atomically.

    ``old`` must stand there exactly once: ``StringNotFound`` shows the nearest lines,
    ``AmbiguousMatch`` all places (at most 100). With ``replace_all`` every place is replaced, from
    the start, overlaps counted once. Where the file has ``\r\n`` and ``old`` only ``\n``, the
    file's line endings are meant, and kept.

    ``expect`` is what the caller knows of the file, its SHA-256 as ``hash_file`` returns it or its
    ``st_mtime_ns``: another file is ``ContentChanged``. So is one that was written while it was
    edited. The file is untouched after every error.
    """
    return _chosen.edit_file(path, old, new, replace_all=replace_all, expect=expect)


def multi_edit_file(
    path: FilePath,
    edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
    *,
    expect: str | int | None = None,
) -> EditResult:
    """Make several edits, ``(old, new)`` or ``(old, new, replace_all)``: all of them or none.

    Each applies to the result of the one before; one replacement of the file follows. ``context``
    of an error has ``edit``, the index of the one that failed.
    """
    return _chosen.multi_edit_file(path, edits, expect=expect)


def preview_edit(
    path: FilePath,
    old: str,
    new: str,
    *,
    replace_all: bool = False,
    expect: str | int | None = None,
) -> EditResult:
    """Tell what ``edit_file`` would do, with the same errors; nothing is written."""
    return _chosen.preview_edit(path, old, new, replace_all=replace_all, expect=expect)


def count_replacements(path: FilePath, old: str) -> int:
    """Return how often ``old`` stands in the file, places that overlap counted once."""
    return _chosen.count_replacements(path, old)


def list_directory(path: FilePath, *, gitignore: bool = False) -> list[DirectoryEntry]:
    """Return the entries of a directory, sorted by the bytes of their names.

    Symlinks are told as such and not followed; an entry that vanishes meanwhile is left out.
    ``gitignore`` leaves out what git would, as ``walk`` does.
    """
    return _chosen.list_directory(path, gitignore=gitignore)


def walk(
    directory: FilePath,
    *,
    gitignore: bool = False,
    hidden: bool = True,
    follow: bool = False,
    include: Names = (),
    exclude: Names = (),
    max_depth: int | None = None,
    sort: bool = False,
) -> Found[WalkEntry]:
    """Walk everything beneath ``directory``: an iterator of ``WalkEntry(path, kind)``.

    Names are found by several threads (Rust) and come as they are found, in no order; with ``sort``
    in that of the bytes of their paths, by one thread. At most a few megabytes wait for the
    consumer, whatever the tree holds. ``close()``, a ``with`` block or dropping the iterator ends
    the walk.

    ``gitignore`` leaves out what git would, and ``.git``: by the ``.gitignore`` files of the
    directory, beneath it and above it up to the repository's own directory, and by
    ``.git/info/exclude``. Without ``hidden`` names with a leading dot are left out. ``include`` and
    ``exclude`` are patterns as in ``glob_files``, of the path beneath ``directory``; one without a
    slash is matched at any depth. What matches ``exclude`` is not entered; with a slash at its end
    it means directories. ``max_depth=1`` gives the directory's own names.

    Symlinks are told as such; ``follow`` enters those of directories, no directory twice on one
    way, and tells what they lead to. Directories that may not be read are left out and are in
    ``errors``; those that vanish are left out.
    """
    return _chosen.walk(
        directory,
        gitignore=gitignore,
        hidden=hidden,
        follow=follow,
        include=include,
        exclude=exclude,
        max_depth=max_depth,
        sort=sort,
    )


def search_text(
    text: str | bytes | bytearray | memoryview,
    pattern: str,
    *,
    literal: bool = False,
    case: Case = "sensitive",
    word: bool = False,
    multiline: bool = False,
    before: int = 0,
    after: int = 0,
    limit: int | None = None,
) -> list[Match]:
    """Return the lines of ``text`` that match ``pattern``, as ``search_files`` does with a file.

    ``text`` is ``str`` or bytes; positions in bytes are those of its UTF-8. ``path`` is None.
    """
    return _chosen.search_text(
        text,
        pattern,
        literal=literal,
        case=case,
        word=word,
        multiline=multiline,
        before=before,
        after=after,
        limit=limit,
    )


def search_files(
    directory: FilePath,
    pattern: str,
    *,
    literal: bool = False,
    case: Case = "sensitive",
    word: bool = False,
    multiline: bool = False,
    before: int = 0,
    after: int = 0,
    include: Names = (),
    exclude: Names = (),
    types: Names = (),
    gitignore: bool = True,
    hidden: bool = False,
    follow: bool = False,
    binary: bool = False,
    max_depth: int | None = None,
    max_file_size: int | None = None,
    max_per_file: int | None = None,
    limit: int | None = None,
    sort: bool = False,
) -> Found[Match]:
    r"""Find the lines that match ``pattern`` in the files beneath ``directory``: an iterator of
    ``Match``, as they are found.

    The order is that of the lines in a file; files come in no order, with ``sort`` in that of the
    bytes of their paths, by one thread. The iterator is that of ``walk``. A match has path, number,
    text and surroundings (``before`` and ``after`` lines) of the line and the places in it, by
    bytes of the file and by characters of the text. ``max_per_file=1`` gives each file once.

    ``pattern`` is a regular expression in the language that Rust and Python have in common (see the
    README), or with ``literal`` the text itself; ``PatternError`` says where it is not. It is
    matched against each line without its ending (``\n`` or ``\r\n``). With ``multiline`` matches
    may cross lines, and lines that matches share come together. ``case`` is ``"sensitive"``,
    ``"ignore"`` or ``"smart"`` (counts if the pattern has a capital); ``word`` wants no letter,
    digit or ``_`` beside a match.

    Searched are regular files that git does not ignore and that are not hidden, unless
    ``gitignore=False`` or ``hidden=True``; ``include``, ``exclude``, ``max_depth`` and ``follow``
    are those of ``walk``; ``types`` are ripgrep's names (``"py"``, ``"rust"``, …). Left out are
    files over ``max_file_size`` bytes, and without ``binary`` those with a NUL in their first 8,000
    bytes. After ``limit`` matches it ends.

    Files that may not be read, and lines over 64 MiB (files, with ``multiline``), are in
    ``errors``. The time is linear in the text, whatever the pattern: the Python backend leaves
    ``re`` for an automaton of its own where ``re`` might not come to an end.
    """
    return _chosen.search_files(
        directory,
        pattern,
        literal=literal,
        case=case,
        word=word,
        multiline=multiline,
        before=before,
        after=after,
        include=include,
        exclude=exclude,
        types=types,
        gitignore=gitignore,
        hidden=hidden,
        follow=follow,
        binary=binary,
        max_depth=max_depth,
        max_file_size=max_file_size,
        max_per_file=max_per_file,
        limit=limit,
        sort=sort,
    )


def count_matches(
    directory: FilePath,
    pattern: str,
    *,
    literal: bool = False,
    case: Case = "sensitive",
    word: bool = False,
    multiline: bool = False,
    include: Names = (),
    exclude: Names = (),
    types: Names = (),
    gitignore: bool = True,
    hidden: bool = False,
    follow: bool = False,
    binary: bool = False,
    max_depth: int | None = None,
    max_file_size: int | None = None,
    sort: bool = False,
) -> Found[FileCount]:
    """Count the lines that match and the matches in them, for each file beneath ``directory`` that
    has any: an iterator of ``FileCount(path, lines, matches)``. Arguments as in ``search_files``.
    """
    return _chosen.count_matches(
        directory,
        pattern,
        literal=literal,
        case=case,
        word=word,
        multiline=multiline,
        include=include,
        exclude=exclude,
        types=types,
        gitignore=gitignore,
        hidden=hidden,
        follow=follow,
        binary=binary,
        max_depth=max_depth,
        max_file_size=max_file_size,
        sort=sort,
    )


def hash_file(path: FilePath, algorithm: str = "sha256") -> str:
    """Return the hash of the content, ``"sha256"`` or ``"blake3"``, in hexadecimal digits.

    The Python backend's ``"blake3"`` is right, and very slow.
    """
    return _chosen.hash_file(path, algorithm)


def Workspace(root: FilePath, read_only: bool = False) -> WorkspaceOperations:
    """Return every operation of this module on paths beneath ``root``, as methods.

    Paths are relative to the root. One that leads out of it, by ``..``, as an absolute path or
    through a symlink (also an absolute one that would come back), is ``OutsideWorkspace``, decided
    by the kernel while it opens the file (``openat2``) or by a walk that follows no symlink, so
    that no race leaves the root either. With ``read_only`` writing is ``ReadOnlyWorkspace``.
    """
    return _chosen.Workspace(root, read_only)
