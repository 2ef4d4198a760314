"""Create the tracking store before anything uses it: several processes that create one at once destroy it.

One that was killed while it created the store leaves half of one, which MLflow cannot use: it is set aside.
"""

from __future__ import annotations

import subprocess
import sys

from steps.chain import locks, tracking
from steps.data.errors import UserError


def main() -> int:
    """Reach the store, creating a local one; exit code 1 with the reason if that fails."""
    import mlflow

    try:
        aside = locks.set_half_store_aside(mlflow.get_tracking_uri())
        if aside is not None:
            print(
                f"init: the store was only half created and held nothing: it is {aside.name} now", flush=True
            )
            # A new process: MLflow keeps a connection to the file that was at this address.
            return subprocess.run([sys.executable, "-m", "steps.ops.init_store"], check=False).returncode
        tracking.connect()
    except UserError as error:
        print(f"init: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
