"""Create the tracking store before anything uses it: several processes that create one at once destroy it."""

from __future__ import annotations

import sys

from steps import store
from steps.errors import UserError


def main() -> int:
    """Reach the store, creating a local one; exit code 1 with the reason if that fails."""
    try:
        store.connect()
    except UserError as error:
        print(f"init: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
