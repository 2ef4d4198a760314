"""What a person sees of the project's messages: the one place that configures logging.

Messages of level INFO are the lines that a person reads while a command works, on standard output, as they
are. Warnings and errors say where they come from and how grave they are; errors go to standard error.
"""

from __future__ import annotations

import logging
import sys

# Back to the start of a terminal's line, which is then empty.
_CLEAR = "\r\x1b[2K"


class _Console(logging.Handler):
    """Writes to the standard streams of the moment, each line at once."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno > logging.INFO:
            text = f"{record.name.rpartition('.')[2]}: {record.levelname.lower()}: {text}"
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        print(f"{_CLEAR}{text}" if stream.isatty() else text, file=stream, flush=True)


def configure() -> None:
    """Show this project's messages, once, however often it is called."""
    logger = logging.getLogger("steps")
    if not logger.handlers:
        logger.addHandler(_Console())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def show_progress(text: str) -> None:
    """What is going on, on a terminal only: the next line takes its place."""
    if sys.stdout.isatty():
        print(f"{_CLEAR}{text}", end="", flush=True)
