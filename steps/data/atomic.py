"""A file that is complete or absent, however its writer ends.

On Linux it is written without a name, which only a finished file gets: a process that is killed leaves
nothing. Where the file system cannot do that, it is written beside its place under a hidden name and moved
there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from steps.data.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(UserError):
    """There is no room for the whole file; nothing of it was left."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[str]:
    """A name to write to while the block runs; afterwards the file is at `path`, or nothing is, if it raised.

    Raises DiskFullError where the disk or the quota is full, and UserError where the folder cannot be
    written.
    """
    try:
        with _nameless(path) as name:
            yield name
    except OSError as error:
        if error.errno in _FULL or "No space left" in str(error) or "quota exceeded" in str(error).lower():
            raise DiskFullError(
                f"the disk of {path.parent} is full: {path.name} was not written, and nothing of it "
                "was left. Free some "
                "space or write it elsewhere"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        raise


@contextlib.contextmanager
def _nameless(path: Path) -> Iterator[str]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        with _hidden(path, partial) as name:
            yield name
        return
    here = f"/proc/self/fd/{descriptor}"
    try:
        yield here
        os.fsync(descriptor)
        try:
            _name(here, path)
        except FileExistsError:
            _name(here, partial)
            partial.replace(path)
    finally:
        os.close(descriptor)


def _name(here: str, path: Path) -> None:
    """Give a nameless file its name. Only with a folder's descriptor does Python follow the link in /proc."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(here, path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _hidden(path: Path, partial: Path) -> Iterator[str]:
    try:
        yield str(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
