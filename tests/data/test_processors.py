"""How many processors a process may keep busy: affinity, and the quota of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steps.data import processors


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight processors, all of which the scheduler allows."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "300000 100000\n"}, 3),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "not what it should be\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_containers_quota_bounds_what_the_scheduler_allows(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    """Both versions of cgroups; a part of a processor counts as none, and one is the least."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors.available(tmp_path) == expected


def test_a_system_without_affinity_counts_its_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors.available(tmp_path) == 6


@pytest.mark.parametrize(("before", "expected"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_sleep_unless_a_person_says_otherwise(
    before: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spinning, they keep the thread that they wait for from running."""
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    processors.let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == expected
