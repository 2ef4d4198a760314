"""Files and folders that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steps.data import atomic
from steps.data.errors import UserError


@pytest.fixture(params=["without a name", "under a hidden name"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file system that knows unnamed files, and with one that does not."""
    if request.param == "under a hidden name":
        monkeypatch.delattr(os, "O_TMPFILE")


@pytest.mark.usefixtures("either_way")
def test_a_text_replaces_the_earlier_one_whole(tmp_path: Path) -> None:
    """Until the block ends the old one stands; one that fails leaves it; nothing else is left."""
    path = tmp_path / "verdict.json"
    atomic.write_text(path, "first")
    with pytest.raises(RuntimeError), atomic.writing(path) as name:
        Path(name).write_text("half")
        assert path.read_text() == "first"
        raise RuntimeError
    assert path.read_text() == "first"
    atomic.write_text(path, "zweite, größer")
    assert path.read_text(encoding="utf-8") == "zweite, größer"
    assert [other.name for other in tmp_path.iterdir()] == ["verdict.json"]


@pytest.mark.usefixtures("either_way")
def test_a_file_with_secrets_is_never_readable_by_others(tmp_path: Path) -> None:
    """Also while it is replaced."""
    path = tmp_path / ".env"
    for text in ("one", "two"):
        atomic.write_text(path, text, mode=0o600)
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    """A failing fill leaves the earlier folder and no other."""
    folder = tmp_path / "release"
    with atomic.filling(folder) as fresh:
        (fresh / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic.filling(folder) as fresh:
        (fresh / "b").write_text("2")
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["a"]
    with atomic.filling(folder) as fresh:
        (fresh / "c").write_text("3")
    assert [path.name for path in folder.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With the path, and no traceback."""
    with pytest.raises(UserError, match=r"out\.csv cannot be written: No such file or directory"):
        atomic.write_text(tmp_path / "nowhere" / "out.csv", "text")
