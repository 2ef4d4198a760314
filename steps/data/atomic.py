"""Write files and folders that are complete or absent, even if the writer is killed.

On Linux a file is written to an unnamed temporary file, which is linked into place when it is complete. Where
the file system does not support that, it is written under a hidden name in the same folder and renamed. A
folder is always filled under a hidden name and then renamed.
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
    """The disk or the quota is full; the incomplete file was removed."""


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a UTF-8 text to `path`, whole or not at all; `mode` as of `open`, before the umask.

    Raises DiskFullError and UserError as `writing` does.
    """
    with writing(path, mode) as name:
        Path(name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(path: Path, mode: int = 0o666) -> Iterator[str]:
    """Yield a name to write to; after the block the file is at `path`, or absent if the block raised.

    Raises DiskFullError where the disk or the quota is full, and UserError where the folder cannot be
    written.
    """
    with _errors_in_words(path), _unnamed_file(path, mode) as name:
        yield name


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill; after the block it replaces `folder`.

    If the block raises, the earlier folder stays. A reader that opens file after file while the folder is
    replaced may see files of both. Raises as `writing` does.
    """
    with _errors_in_words(folder):
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
def _errors_in_words(path: Path) -> Iterator[None]:
    """Turn errors of the file system into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or "No space left" in str(error) or "quota exceeded" in str(error).lower():
            raise DiskFullError(
                f"the disk of {path.parent} is full: {path.name} was not written. "
                "Free some space or write it elsewhere"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        raise


@contextlib.contextmanager
def _unnamed_file(path: Path, mode: int) -> Iterator[str]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, mode)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        with _hidden_file(path, partial, mode) as name:
            yield name
        return
    descriptor_path = f"/proc/self/fd/{descriptor}"
    try:
        yield descriptor_path
        os.fsync(descriptor)
        try:
            _link(descriptor_path, path)
        except FileExistsError:
            _link(descriptor_path, partial)
            partial.replace(path)
    finally:
        os.close(descriptor)


def _link(descriptor_path: str, path: Path) -> None:
    """Link an unnamed file to `path`; Python follows the link in /proc only with a folder's descriptor."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(descriptor_path, path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _hidden_file(path: Path, partial: Path, mode: int) -> Iterator[str]:
    os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, mode))
    try:
        yield str(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename a finished folder to its name, after moving an older folder of that name away."""
    while True:
        try:
            fresh.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        old_folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.rename(old_folder / folder.name)
        shutil.rmtree(old_folder)


def _remove_leftovers(folder: Path) -> None:
    """Delete the unfinished folders of processes that were killed more than a day ago."""
    for leftover in folder.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just put it in place
            if leftover.is_dir() and time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
