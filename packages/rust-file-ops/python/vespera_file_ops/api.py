"""Responsible for the module functions: one documented signature each, done by the chosen backend.

Paths are ``str``, ``bytes`` or ``os.PathLike``; one that no file can have is a ``ValueError``.
Every function acts on regular files only: a directory raises ``IsADirectoryError``, a FIFO, socket
or device an ``OSError`` (``ENXIO``, ``ENODEV``) at once, so that nothing ever hangs. Symlinks are
followed. What the system refuses is an ``OSError`` subclass with ``errno`` and ``filename``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vespera_file_ops._arguments import FilePath
from vespera_file_ops._finding import Case, Found, Names
from vespera_file_ops._operations import WorkspaceOperations
from vespera_file_ops.backends import BackendName, choose
from vespera_file_ops.results import (
    Chunk,
    DirectoryEntry,
    EditResult,
    FileCount,
    FileInfo,
    FileResult,
    LineRange,
    Match,
    TextFile,
    WalkEntry,
    WriteResult,
)

__all__ = [
    "Workspace",
    "append_file",
    "backend",
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

_name, _chosen = choose()


def backend() -> BackendName:
    """Return which backend the functions of this module use: ``"rust"`` or ``"python"``."""
    return _name


def read_file(path: FilePath, *, max_bytes: int | None = None) -> bytes:
    """Return the whole content of a regular file.

    A file of more than ``max_bytes`` is ``FileTooLarge``, told before it is read.
    """
    return _chosen.read_file(path, max_bytes=max_bytes)


def read_file_string(path: FilePath, *, max_bytes: int | None = None) -> str:
    """Return the whole content as text.

    The file must be UTF-8: ``EncodingError`` (a ``ValueError``) names the first byte that is not.
    A byte order mark and all line endings stay as they are. ``max_bytes`` as in ``read_file``.
    """
    return _chosen.read_file_string(path, max_bytes=max_bytes)


def read_file_lines(path: FilePath, *, max_bytes: int | None = None) -> list[str]:
    r"""Return the lines of a UTF-8 file without their endings (``\n`` or ``\r\n``).

    Nothing else ends a line (no form feed, no lone ``\r``), and a final newline opens no further,
    empty line. Not UTF-8: ``EncodingError``. ``max_bytes`` as in ``read_file``.
    """
    return _chosen.read_file_lines(path, max_bytes=max_bytes)


def read_text(path: FilePath, *, encoding: str = "auto", max_bytes: int | None = None) -> TextFile:
    """Return the text of a file and how the file holds it: encoding and line endings.

    ``"auto"`` is UTF-8 unless a byte order mark tells UTF-16 (``"utf-16-le"``, ``"utf-16-be"``) or
    UTF-8 with a mark (``"utf-8-sig"``); the mark is not part of the text. ``"latin-1"``, in which
    any bytes are valid, is never guessed. Line endings stay as they are. ``max_bytes`` as in
    ``read_file``.
    """
    return _chosen.read_text(path, encoding=encoding, max_bytes=max_bytes)


def read_lines(
    path: FilePath,
    start: int = 1,
    count: int | None = None,
    *,
    encoding: str = "auto",
    max_bytes: int | None = None,
) -> LineRange:
    """Return ``count`` lines, or all, from line ``start`` (counted from 1) on.

    The file is read up to the end of the last of them and no further; memory is that of the lines.
    Beyond the end there are none, which is no error. Lines that have more than ``max_bytes``
    together are ``FileTooLarge``. ``encoding`` as in ``read_text``; only the lines need be text.
    """
    return _chosen.read_lines(path, start, count, encoding=encoding, max_bytes=max_bytes)


def read_files(
    paths: Iterable[FilePath], *, max_bytes: int | None = None, threads: int | None = None
) -> list[FileResult[bytes]]:
    """Return the content of each file, or its error, in the order of ``paths``.

    The files are read in parallel. No error of one is raised or loses another's content.
    ``max_bytes`` is for each file.
    """
    return _chosen.read_files(paths, max_bytes=max_bytes, threads=threads)


def write_file(
    path: FilePath,
    content: bytes | bytearray | memoryview,
    *,
    atomic: bool = False,
    expect: str | int | None = None,
) -> None:
    """Write ``content`` in place, creating the file if it is missing.

    Inode, owner, mode and hard links stay. Room is reserved first: where the disk is full or a
    size limit is met, the old content stays and a new file does not appear. A crash in the middle
    may leave a mixture; ``atomic=True`` writes as ``write_file_atomic`` does, and may have an
    ``expect`` as in ``edit_file``. A write in place waits for a lock as ``edit_file`` does.
    """
    _chosen.write_file(path, content, atomic=atomic, expect=expect)


def write_text(
    path: FilePath,
    text: str,
    *,
    encoding: str = "auto",
    newline: str | None = "keep",
    expect: str | int | None = None,
) -> WriteResult:
    r"""Replace the text of a file atomically, in the encoding and with the line endings it has.

    ``"auto"`` is the encoding that the file's byte order mark tells, else UTF-8; the mark is
    written where the encoding has one. A mark that ``text`` begins with is that mark, and makes
    UTF-8 ``"utf-8-sig"``, which ``WriteResult.encoding`` says. What the encoding cannot hold is
    ``EncodingError``.

    With ``newline="keep"`` a ``\n`` is written as ``\r\n`` where all lines within the first 64 KiB
    of the file end so and ``text`` itself has no ``\r``; ``"\n"`` and ``"\r\n"`` decide it and
    ``None`` writes as given. ``expect`` as in ``edit_file``; without it the last writer wins.
    """
    return _chosen.write_text(path, text, encoding=encoding, newline=newline, expect=expect)


def write_files(
    items: Iterable[tuple[FilePath, bytes | bytearray | memoryview | str]],
    *,
    atomic: bool = True,
    threads: int | None = None,
) -> list[FileResult[None]]:
    """Write each ``(path, content)`` and return what became of each, in order.

    The files are written in parallel, each as ``write_file_atomic`` or, without ``atomic``,
    ``write_file`` does; text is written as UTF-8. There is no order among them, so a path given
    twice is a ``ValueError``. No error of one is raised or keeps another from being written.
    """
    return _chosen.write_files(items, atomic=atomic, threads=threads)


def write_file_string(path: FilePath, content: str) -> None:
    """Write text as UTF-8, as ``write_file`` does; line endings are not translated."""
    _chosen.write_file_string(path, content)


def append_file(path: FilePath, content: str) -> None:
    """Add text as UTF-8 at the end, creating the file if it is missing.

    One ``O_APPEND`` write, so several writers do not tear each other's lines. What a full disk cut
    short is taken back. It takes turns with edits, and waits for a lock as ``edit_file`` does.
    """
    _chosen.append_file(path, content)


def write_file_atomic(path: FilePath, content: str) -> None:
    """Replace the content so that readers, and a crash, see the old or the new content whole.

    A temporary file beside the target (``.vespera-….tmp``) is written, forced to disk and renamed;
    the directory is forced to disk too. What a writer that was killed left there is removed by the
    next write of the same file. Mode, extended attributes and ACLs are kept, owner and group where
    the system allows it: nobody may do more with the new file than with the old one. A symlink is
    written through. Hard links to the old content keep the old content. It is the directory that
    must be writable; one that takes no new files, as in ``/proc``, is an ``OSError`` with
    ``EOPNOTSUPP``.
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


def file_info(path: FilePath, *, follow_symlinks: bool = True) -> FileInfo:
    """Return what the path leads to: size, kind, mode, time of change and more.

    Nothing is opened for reading. With ``follow_symlinks=False`` a symlink is told about itself.
    """
    return _chosen.file_info(path, follow_symlinks=follow_symlinks)


def edit_file(
    path: FilePath,
    old: str,
    new: str,
    *,
    replace_all: bool = False,
    expect: str | int | None = None,
    encoding: str = "auto",
    max_bytes: int | None = None,
) -> EditResult:
    r"""Replace ``old`` by ``new`` in a text file, atomically.

    ``old`` must stand there exactly once: ``StringNotFound`` shows the nearest lines,
    ``AmbiguousMatch`` all places (at most 100). With ``replace_all`` every place is replaced, from
    the start, overlaps counted once. ``encoding`` as in ``read_text``; the file keeps it, and its
    byte order mark, which is no part of the text. A file of more than ``max_bytes`` is
    ``FileTooLarge``, told before it is read. Where its directory takes no new files, as in
    ``/proc``, it is an ``OSError`` with ``EOPNOTSUPP``.

    Where the file has ``\r\n`` and ``old`` only ``\n``, the file's line endings are meant: a place
    is never the ``\n`` of a ``\r\n``, and where there is no other ``\n`` for it, ``old`` and
    ``new`` are taken with ``\r\n``. Where the file has nothing but ``\r\n``, a ``new`` for an
    ``old`` within a line gets them too. An ``old`` with ``\r\n``, and its ``new``, count as given.

    ``expect`` is what the caller knows of the file, its SHA-256 as ``hash_file`` returns it or its
    ``st_mtime_ns``: another file is ``ContentChanged``. So is one that was written while it was
    edited. The file is untouched after every error.

    Edits, appends and writes in place of one file take turns, by a lock (``flock``) that is waited
    for: ``FileLocked``, a ``BlockingIOError``, if somebody else still holds one after 10 s.
    """
    return _chosen.edit_file(
        path,
        old,
        new,
        replace_all=replace_all,
        expect=expect,
        encoding=encoding,
        max_bytes=max_bytes,
    )


def multi_edit_file(
    path: FilePath,
    edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
    *,
    expect: str | int | None = None,
    encoding: str = "auto",
    max_bytes: int | None = None,
) -> EditResult:
    """Make several edits, ``(old, new)`` or ``(old, new, replace_all)``: all of them or none.

    Each applies to the result of the one before; one replacement of the file follows. ``context``
    of an error has ``edit``, the index of the one that failed. The rest as in ``edit_file``.
    """
    return _chosen.multi_edit_file(
        path, edits, expect=expect, encoding=encoding, max_bytes=max_bytes
    )


def preview_edit(
    path: FilePath,
    old: str,
    new: str,
    *,
    replace_all: bool = False,
    expect: str | int | None = None,
    encoding: str = "auto",
    max_bytes: int | None = None,
) -> EditResult:
    """Tell what ``edit_file`` would do, with the same errors; nothing is written."""
    return _chosen.preview_edit(
        path,
        old,
        new,
        replace_all=replace_all,
        expect=expect,
        encoding=encoding,
        max_bytes=max_bytes,
    )


def preview_multi_edit(
    path: FilePath,
    edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
    *,
    expect: str | int | None = None,
    encoding: str = "auto",
    max_bytes: int | None = None,
) -> EditResult:
    """Tell what ``multi_edit_file`` would do, with the same errors; nothing is written."""
    return _chosen.preview_multi_edit(
        path, edits, expect=expect, encoding=encoding, max_bytes=max_bytes
    )


def count_replacements(
    path: FilePath, old: str, *, encoding: str = "auto", max_bytes: int | None = None
) -> int:
    """Return how many places ``edit_file`` with ``replace_all`` would replace.

    A UTF-8 file need not be text as a whole. ``encoding`` and ``max_bytes`` as in ``edit_file``.
    """
    return _chosen.count_replacements(path, old, encoding=encoding, max_bytes=max_bytes)


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

    BLAKE3 of a large file is computed by all processors. The Python backend's is right, and very
    slow.
    """
    return _chosen.hash_file(path, algorithm)


def hash_files(
    paths: Iterable[FilePath], algorithm: str = "sha256", *, threads: int | None = None
) -> list[FileResult[str]]:
    """Return the hash of each file, or its error, in the order of ``paths``; in parallel."""
    return _chosen.hash_files(paths, algorithm, threads=threads)


def chunk_text(text: str, size: int, *, overlap: int = 0, boundary: str = "line") -> list[Chunk]:
    """Cut a text into chunks of at most ``size`` characters, with the ranges they stand at.

    A chunk ends at the last ``boundary`` within its size: ``"line"``, ``"sentence"`` (behind the
    space that follows ``.``, ``!``, ``?``, behind an empty line, behind a full stop of Chinese or
    Japanese) or ``"character"`` (its size). Where there is none, it ends behind a line, else behind
    a word, else at its size; never inside a line ending of two characters, unless ``size`` is 1.
    A chunk begins where the one before ended, or up to ``overlap`` characters earlier, at a
    boundary if there is one. Put together from the end of one to the end of the next, the chunks
    are the text, character by character and byte by byte.
    """
    return _chosen.chunk_text(text, size, overlap=overlap, boundary=boundary)


def Workspace(root: FilePath, read_only: bool = False) -> WorkspaceOperations:
    """Return every operation of this module on paths beneath ``root``, as methods.

    Paths are relative to the root. One that leads out of it, by ``..``, as an absolute path or
    through a symlink (also an absolute one that would come back), is ``OutsideWorkspace``, decided
    by the kernel while it opens the file (``openat2``) or by a walk that follows no symlink, so
    that no race leaves the root either. With ``read_only`` writing is ``ReadOnlyWorkspace``.
    """
    return _chosen.Workspace(root, read_only)
