"""`python -m monitoring.sidecar`: the sidecar, until SIGTERM or SIGINT. Exit code 2 for bad settings.

`--help` lists the settings, which are environment variables.
"""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from pathlib import Path

import prometheus_client

from monitoring import reference
from monitoring.sidecar import budget, settings
from monitoring.sidecar.assembly import assemble

SWITCH_SECONDS = 0.0005
# Open files besides connections: the metrics port, modules, the log.
OTHER_FILES = 100

log = logging.getLogger("model-exporter")


def main() -> int:
    """Run the sidecar; returns the exit code."""
    argparse.ArgumentParser(
        prog="python -m monitoring.sidecar",
        description="The sidecar of a served model. Its settings are environment variables:",
        epilog=settings.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        chosen = settings.read(os.environ)
        model_reference = reference.load(chosen.reference) if chosen.reference else None
        page = Path(chosen.page).read_bytes() if chosen.page else None
    except (settings.SettingsError, reference.ReferenceError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"MODEL_EXPORTER_PAGE cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    logging.basicConfig(level=chosen.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # its records can quote what callers sent
    allow_files(chosen.connections + chosen.threads + chosen.batch_calls + OTHER_FILES)
    sys.setswitchinterval(SWITCH_SECONDS)  # the event loop must not wait 5 ms for a thread that counts
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        sidecar = assemble(chosen, model_reference, page)
    except OSError as error:
        print(f"cannot listen on the traffic or the metrics port: {error.strerror}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sidecar.server.stop())
    log.info("serving %s on %s:%d", chosen.upstream, chosen.host, chosen.port)
    log.info(budget.describe(chosen))
    asyncio.run(sidecar.run())
    log.info("stopped")
    return 0


def allow_files(count: int) -> None:
    """Raise this process's limit of open files. Otherwise clients that only connect could use up all files,
    and the sidecar could not connect to the container for anyone else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < count:
        log.warning("the system allows %d open files, not %d: lower MODEL_EXPORTER_CONNECTIONS", limit, count)


if __name__ == "__main__":
    sys.exit(main())
