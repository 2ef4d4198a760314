"""Messages on the console: the only module that configures logging.

Messages of level INFO go to standard output unchanged: a person reads them while a command works. Warnings
and errors start with their source and level; errors go to standard error.
"""

from __future__ import annotations

import logging
import sys

# Back to the start of a terminal's line, which is then empty.
_CLEAR = "\r\x1b[2K"


class _Console(logging.Handler):
    """Writes to the current standard streams, and flushes each line."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno > logging.INFO:
            text = f"{record.name.rpartition('.')[2]}: {record.levelname.lower()}: {text}"
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        print(f"{_CLEAR}{text}" if stream.isatty() else text, file=stream, flush=True)


def configure() -> None:
    """Show this project's messages; calling it again changes nothing."""
    logger = logging.getLogger("steps")
    if not logger.handlers:
        logger.addHandler(_Console())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def show_progress(text: str) -> None:
    """Show what is being done, on a terminal only; the next line replaces it."""
    if sys.stdout.isatty():
        print(f"{_CLEAR}{text}", end="", flush=True)
