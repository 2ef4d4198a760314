"""Files and folders that are complete or absent, however their writer ends: the one way to write them here.

On Linux a file is written without a name and linked into place when it is complete, so a process that is
killed leaves nothing. Where the file system cannot do that, it is written beside its place under a hidden
name and moved there. A folder is always filled under a hidden name and then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from steps.data.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL = "part-"
_LEFTOVER_SECONDS = 86_400


class DiskFullError(UserError):
    """There is no room for the whole file; nothing of it was left."""


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Put a UTF-8 text at `path`, whole or not at all; `mode` as of `open`, before the umask.

    Raises DiskFullError and UserError as `writing` does.
    """
    with writing(path, mode) as name:
        Path(name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(path: Path, mode: int = 0o666) -> Iterator[str]:
    """A name to write to while the block runs; afterwards the file is at `path`, or nothing is, if it raised.

    Raises DiskFullError where the disk or the quota is full, and UserError where the folder cannot be
    written.
    """
    with _explained(path), _nameless(path, mode) as name:
        yield name


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A new folder to fill while the block runs; afterwards it is `folder`, in place of an earlier one.

    If the block raises, the earlier one stays. A reader finds all of a folder or nothing; one that reads file
    after file while the folder is replaced may find both. Raises as `writing` does.
    """
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        fresh = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
        fresh.chmod(0o777 & ~_umask())
        try:
            yield fresh
            for path in fresh.rglob("*"):
                if path.is_file():
                    with path.open("rb") as stream:
                        os.fsync(stream.fileno())
            _put_in_place(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of the file system into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or "No space left" in str(error) or "quota exceeded" in str(error).lower():
            raise DiskFullError(
                f"the disk of {path.parent} is full: {path.name} was not written, and nothing of it "
                "was left. Free some space or write it elsewhere"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        raise


@contextlib.contextmanager
def _nameless(path: Path, mode: int) -> Iterator[str]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, mode)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        with _hidden(path, partial, mode) as name:
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
def _hidden(path: Path, partial: Path, mode: int) -> Iterator[str]:
    os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, mode))
    try:
        yield str(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename a finished folder to its name, an older one out of the way."""
    while True:
        try:
            fresh.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        aside = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.rename(aside / folder.name)
        shutil.rmtree(aside)


def _remove_leftovers(folder: Path) -> None:
    """What processes that were killed more than a day ago left unfinished."""
    for leftover in folder.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just put it in place
            if leftover.is_dir() and time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
