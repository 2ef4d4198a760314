"""The exposition that Prometheus reads, kept as a file: a diff shows every change of a metric.

Write the file anew with `python -m tests.sidecar.test_exposition > tests/sidecar/exposition.txt`.
"""

import gzip
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from monitoring.reference import parse
from monitoring.sidecar.metrics import Metrics
from tests.conftest import require
from tests.made_up.sidecars import Start, small_document

KEPT = Path(__file__).with_name("exposition.txt")


def exposition() -> str:
    """The metrics of a sidecar that has just started; a star stands for what no two processes share."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    text = generate_latest(Metrics(CollectorRegistry(), parse(small_document()), "7").registry).decode()
    return re.sub(r"(?m)^(process_\w+) .*$", r"\1 *", text)


def test_the_metrics_are_those_of_the_kept_file() -> None:
    """Names, types, help texts, labels, values at the start."""
    assert exposition() == KEPT.read_text(encoding="utf-8")


@pytest.mark.real
def test_promtool_finds_no_fault_with_the_metrics() -> None:
    """Names, units, types, help texts."""
    text = exposition().replace(" *\n", " 1\n")
    checked = subprocess.run(
        [require("promtool"), "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_the_page_speaks_openmetrics_and_gzip(start: Start) -> None:
    """As the scraper asks."""
    running = start(9)
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.sidecar.metrics_server.port}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = gzip.decompress(answer.read()).decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"sidecar_requests", "process_resident_memory_bytes"} <= names


if __name__ == "__main__":
    print(exposition(), end="")
