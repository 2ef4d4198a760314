"""Create the tracking store before anything uses it: several processes that create one at once destroy it.

One that was killed while it created the store leaves half of one, which MLflow cannot use: it is set aside.
"""

from __future__ import annotations

import logging
import subprocess
import sys

from steps.chain import locks, process, tracking
from steps.data.errors import UserError

log = logging.getLogger("steps.ops")

# The experiment of all that `make` runs: what one word has done, another finds in the same list.
EXPERIMENT = "diabetes-risk"


def main() -> int:
    """Reach the store, creating a local one; exit code 1 with the reason if that fails."""
    return process.command("init", _create)


def _create() -> int:
    import mlflow

    aside = locks.set_half_store_aside(mlflow.get_tracking_uri())
    if aside is not None:
        log.info("init: the store was only half created and held nothing: it is %s now", aside.name)
        # A new process: MLflow keeps a connection to the file that was at this address.
        return subprocess.run([sys.executable, "-m", "steps.ops.init_store"], check=False).returncode
    deleted = tracking.deleted_experiment(tracking.connect(), EXPERIMENT)
    if deleted is not None:
        raise UserError(deleted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
