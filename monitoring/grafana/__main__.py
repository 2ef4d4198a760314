"""Writes the files that Grafana is provisioned with: dashboards and alert rules.

python -m monitoring.grafana           writes dashboards/*.json and provisioning/alerting/rules.yaml
python -m monitoring.grafana --check   exits 1 if a file is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from monitoring.grafana.alerts import rules as alerts
from monitoring.grafana.boards import data, model, people, runbook, service
from monitoring.grafana.style import Panel, link

FOLDER = Path(__file__).resolve().parent


def find_panel(boards: Sequence[Panel], uid: str, title: str) -> Panel:
    """The panel of this title on the dashboard of this uid; LookupError if there is none."""
    for board in boards:
        panels: list[Panel] = board["panels"]
        for panel in panels:
            if board["uid"] == uid and panel["title"] == title and panel["type"] != "row":
                return panel
    raise LookupError(f"the dashboard {uid!r} has no panel {title!r}")


def panel_id(boards: Sequence[Panel], uid: str, title: str) -> int:
    """Id of the panel of this title on the dashboard of this uid."""
    return int(find_panel(boards, uid, title)["id"])


def files() -> dict[Path, str]:
    """Every generated file and its text."""
    boards = [service.board(), data.board(), model.board(), people.board()]
    boards.append(runbook.board(runbook.RUNBOOK.read_text(encoding="utf-8")))

    def runbook_url(title: str) -> str:
        return f"/d/{runbook.UID}?viewPanel=panel-{panel_id(boards, runbook.UID, title)}"

    for alert in alerts.ALERTS:  # each panel links to the runbook of its alerts
        links = find_panel(boards, *alert.panel).setdefault("links", [])
        links.append(link(f"Runbook: {alert.title}", runbook_url(alert.title)))
    rules = alerts.rule_file(lambda uid, title: panel_id(boards, uid, title), runbook_url)
    head = "# Written by `python -m monitoring.grafana`: change the rules in alerts.py.\n"
    return {
        **{
            FOLDER / "dashboards" / f"{board['uid']}.json": json.dumps(board, indent=1, ensure_ascii=False)
            + "\n"
            for board in boards
        },
        FOLDER / "provisioning" / "alerting" / "rules.yaml": head
        + yaml.safe_dump(rules, sort_keys=False, allow_unicode=True, width=110),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files, or say which of them are stale."""
    parser = argparse.ArgumentParser(description="Write Grafana's dashboards and alert rules.")
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    check = parser.parse_args(argv).check
    stale = [
        path
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if check:
        for path in stale:
            print(
                f"{path.relative_to(FOLDER)} is stale: run python -m monitoring.grafana",
                file=sys.stderr,
            )
        return 1 if stale else 0
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
