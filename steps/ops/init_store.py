"""Create the tracking store before it is used: several processes that create it at once destroy it.

A process that was killed while it created the store leaves an incomplete file that MLflow cannot use; it is
renamed.
"""

from __future__ import annotations

import logging
import subprocess
import sys

from steps.chain import locks, process, tracking
from steps.data.errors import UserError

log = logging.getLogger("steps.ops")

# The experiment of all runs that `make` starts, so that they are in one list.
EXPERIMENT = "diabetes-risk"


def main() -> int:
    """Connect to the store, or create a local one; exit code 1 with the reason if that fails."""
    return process.command("init", _create)


def _create() -> int:
    import mlflow

    renamed = locks.set_half_store_aside(mlflow.get_tracking_uri())
    if renamed is not None:
        log.info(
            "init: the store was only partly created and held nothing; it was renamed to %s", renamed.name
        )
        # A new process: MLflow keeps a connection to the file that was at this address.
        return subprocess.run([sys.executable, "-m", "steps.ops.init_store"], check=False).returncode
    deleted = tracking.deleted_experiment(tracking.connect(), EXPERIMENT)
    if deleted is not None:
        raise UserError(deleted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
