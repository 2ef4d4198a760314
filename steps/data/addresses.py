"""Addresses as they may be shown: without the user and password that some carry."""

from __future__ import annotations

import re

# Up to the last @ before the path: a password may hold an @ of its own.
_CREDENTIALS = re.compile(r"://[^/\s]*@")


def without_credentials(text: str) -> str:
    """A text with `***` in the place of user and password of every address in it."""
    return _CREDENTIALS.sub("://***@", text)
