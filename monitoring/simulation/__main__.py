"""Play a scenario: as live traffic through the sidecar, or as a past of days in a real Prometheus.

    python -m monitoring.simulation live --scenario broken-sensor --rate 20 --seconds 300
    python -m monitoring.simulation backfill --scenario ageing-population --days 30 --out past --port 9090

Both end with the alerts that are expected, computed from what was sent. The backfill also asks Prometheus,
and ends with exit code 1 if the two disagree. Tokens for the sidecar come from the environment variables of
the sidecar's own settings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monitoring import reference as reader
from monitoring.grafana import lint
from monitoring.prometheus import __main__ as generate
from monitoring.prometheus.promql import Rule
from monitoring.simulation import expected, people, world
from monitoring.simulation import traffic as live
from monitoring.simulation.alert_states import final_state, seconds
from monitoring.simulation.history import History, Server, add_blocks, openmetrics, record
from steps.data.errors import UserError
from steps.data.schema import Schema, registered_name
from steps.data.schema_file import load

ROOT = Path(__file__).resolve().parents[2]
# Alerts need the end of the past sampled and evaluated each minute; earlier parts are coarser.
FINE_SECONDS, FINE_STEP = 1800.0, 60.0
COARSE_STEP, RULE_STEP = 600.0, 900.0
RESOLUTION_DAYS = 14


def moments(days: float, end: float) -> list[float]:
    """Times of the scrapes of a past of `days` that ends at `end`, in seconds since 1970."""
    start, fine = end - days * world.DAY, end - FINE_SECONDS
    coarse = COARSE_STEP if days <= RESOLUTION_DAYS else 2 * COARSE_STEP
    coarse_count = int((fine - start) / coarse)
    times = [start + number * coarse for number in range(coarse_count + 1) if start + number * coarse < fine]
    return times + [fine + number * FINE_STEP for number in range(int(FINE_SECONDS / FINE_STEP) + 1)]


def backfill(
    setting: world.World, plan: world.Plan, times: Sequence[float], store: Path, *, quiet: bool = False
) -> History:
    """Play a scenario and load it, with the recording rules, into a new Prometheus store.

    Raises EmptyRulesError if a rule that should have data has none.
    """
    from tqdm import tqdm

    if store.exists() and any(store.iterdir()):
        raise UserError(f"{store} is not empty: name a new folder")
    store.mkdir(parents=True, exist_ok=True)
    history = History()
    played = world.play(setting, plan, times, history)
    for _ in tqdm(played, total=len(times), unit=" scrapes", disable=quiet or None):
        pass
    add_blocks(openmetrics(history.times, history.series), store)
    fine = times[-1] - FINE_SECONDS
    is_long = times[-1] - times[0] > RESOLUTION_DAYS * world.DAY
    grids = [(times[0], fine - FINE_STEP, RULE_STEP * (4 if is_long else 1)), (fine, times[-1], FINE_STEP)]
    has_labels = plan.label_share > 0
    record(
        store,
        generate.levels(),
        grids,
        lambda rule: _may_be_empty(rule, has_labels),
        (lambda _: None) if quiet else (lambda text: print(text, file=sys.stderr)),
    )
    return history


def _may_be_empty(rule: Rule, labelled: bool) -> bool:
    """Whether a rule may have no data: it needs labels, many labels, a mended fault, or a longer past."""
    on_labels = "feedback" in rule.record or "calibration" in rule.record
    needs_many = rule.record.startswith("window:model_feedback:") or "influence" in rule.record
    mended = rule.record.endswith("mended_evidence")
    by_group = "model_group" in rule.record  # a schema need not name groups
    rare = needs_many or mended or by_group
    return (on_labels and not labelled) or rare or rule.labels.get("window") == "90d"


def firing_alerts(server: Server, end: float, rules: Sequence[dict[str, Any]]) -> expected.Alerts:
    """The alerts of Grafana's rules that fire at `end`, with the features that they name.

    Evaluated each minute over the last half hour by the state machine of `alert_states`.
    """
    alerts: dict[str, frozenset[str]] = {}
    grid = [end - FINE_SECONDS + number * FINE_STEP for number in range(int(FINE_SECONDS / FINE_STEP) + 1)]
    for rule in rules:
        condition = rule["data"][1]["model"]["conditions"][0]["evaluator"]
        answer = server.query_range(rule["data"][0]["model"]["expr"], grid[0], grid[-1], FINE_STEP)
        for series in answer or [{"metric": {}, "values": []}]:
            values = {round(float(at)): float(value) for at, value in series["values"]}
            state = final_state(
                [values.get(round(at), "no data") for at in grid],
                condition["type"],
                condition["params"][0],
                lasts=seconds(rule["for"]),
                keep=seconds(rule["keepFiringFor"]),
                no_data=rule["noDataState"],
                failure=rule["execErrState"],
            )
            if state == "Alerting":
                name = series["metric"].get("feature")
                alerts[rule["title"]] = alerts.get(rule["title"], frozenset()) | ({name} if name else set())
    return alerts


def alert_rules() -> list[dict[str, Any]]:
    """Every rule in Grafana's files, except the watchdog that always fires."""
    return [rule for _, rule in lint.read().rules() if rule["labels"]["severity"] != "watchdog"]


def describe(alerts: expected.Alerts) -> str:
    """Alerts as text for people, one per line."""
    lines = [
        f"  {title}{': ' + ', '.join(sorted(names)) if names else ''}"
        for title, names in sorted(alerts.items())
    ]
    return "\n".join(lines) or "  none"


def _champion(schema: Schema, folder: Path) -> Path:
    """The champion's model and reference.json, copied from the store into a folder."""
    from steps.chain.registry import alias_version
    from steps.chain.tracking import connect

    client = connect()
    for kind in ("synthetic", "public"):
        name = registered_name(schema, kind)
        version = alias_version(client, name, "champion")
        if version is not None:
            run_id = str(client.get_model_version(name, version).run_id)
            client.download_artifacts(run_id, "model", str(folder))
            client.download_artifacts(run_id, "reference.json", str(folder))
            return folder
    raise UserError("there is no champion yet: `make run` makes one, or name a model's folder with --model")


def _reference(folder: Path) -> reader.Reference:
    try:
        if not (folder / "model").is_dir():
            raise OSError("there is no model/ in it")
        return reader.load(folder / "reference.json")
    except (OSError, reader.ReferenceError) as error:
        raise UserError(f"{folder}: {error}; a model's folder holds model/ and reference.json") from None


def _run_backfill(args: argparse.Namespace, schema: Schema) -> int:
    from steps.models import saved

    scenario = schema.scenario(args.scenario)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model or _champion(schema, Path(scratch))
        reference = _reference(folder)
        setting = world.World(
            schema, people.read_facts(schema, ROOT), saved.load(folder / "model"), reference
        )
        plan = world.Plan(
            scenario, args.rows, args.label_share, args.label_delay, args.seed, args.unflagged_label_share
        )
        end = time.time() // 3600 * 3600
        history = backfill(setting, plan, moments(args.days, end), args.out)
    expected_alerts = expected.firing(history, setting.reference, end)
    print(f"{scenario.title}: {scenario.description}\n")
    print(f"Alerts expected from what was sent:\n{describe(expected_alerts)}")
    with Server(args.out, args.port) as server:
        firing = firing_alerts(server, end, alert_rules())
        print(f"\nAlerts that fire in Prometheus:\n{describe(firing)}")
        if args.port is not None:
            print(f"\nPrometheus serves this past on {server.url} until Ctrl-C.")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                print()
    return 0 if expected_alerts == firing else 1


def _run_live(args: argparse.Namespace, schema: Schema) -> int:
    scenario = schema.scenario(args.scenario)
    with tempfile.TemporaryDirectory() as scratch:
        reference = _reference(args.model or _champion(schema, Path(scratch)))
    facts = people.read_facts(schema, ROOT)
    traffic = live.Traffic(
        *(args.url, args.rate, args.seconds, args.clients, args.label_share, args.label_delay, args.seed),
        token=os.environ.get(live.BEARER, ""),
        feedback_token=os.environ.get(live.FEEDBACK_BEARER, ""),
    )
    report = live.send(schema, facts, scenario, reference, traffic)
    print(f"{scenario.title}: {scenario.description}\n")
    print(json.dumps(report.figures, indent=2))
    print(f"\nAlerts to expect once each has held for its ten minutes:\n{describe(report.alerts)}")
    return 0 if report.answered else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring.simulation", description="Play a scenario.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--scenario", default="steady", help="a scenario of the schema (default: steady)")
    common.add_argument("--schema", type=Path, default=ROOT / "data" / "brfss2015.yaml")
    common.add_argument(
        "--model", type=Path, help="folder with model/ and reference.json (default: the champion)"
    )
    common.add_argument(
        "--label-share", type=float, default=0.5, help="share of people whose outcome comes back"
    )
    common.add_argument("--seed", type=int, default=1)
    live_parser = commands.add_parser(
        "live",
        parents=[common],
        help="traffic through the sidecar, now",
        epilog=f"Tokens, if the sidecar asks for them, come from {live.BEARER} and {live.FEEDBACK_BEARER}.",
    )
    live_parser.add_argument("--url", default="http://127.0.0.1:8080", help="the traffic port")
    live_parser.add_argument(
        "--rate", type=float, default=20, help="requests a second, before the scenario's own rate"
    )
    live_parser.add_argument("--seconds", type=float, default=120)
    live_parser.add_argument("--clients", type=int, default=8, help="connections at a time")
    live_parser.add_argument(
        "--label-delay", type=float, default=10, help="seconds until an outcome comes back"
    )
    backfill_parser = commands.add_parser(
        "backfill", parents=[common], help="a past of days, in a real Prometheus"
    )
    backfill_parser.add_argument("--days", type=float, default=3)
    backfill_parser.add_argument(
        "--rows", type=float, default=5000, help="people a day, before the scenario's own rate"
    )
    backfill_parser.add_argument(
        "--label-delay", type=float, default=1, help="days until an outcome comes back, on average"
    )
    backfill_parser.add_argument(
        "--unflagged-label-share",
        type=float,
        help="share of people under the threshold whose outcome comes back (default: as of the others)",
    )
    backfill_parser.add_argument(
        "--out", type=Path, required=True, help="a new folder for Prometheus' blocks"
    )
    backfill_parser.add_argument(
        "--port", type=int, help="serve that past on this port of loopback until Ctrl-C"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit code 1 if expectation and Prometheus disagree, or after a user's mistake."""
    args = _parser().parse_args(argv)
    try:
        schema = load(args.schema)
        return _run_live(args, schema) if args.command == "live" else _run_backfill(args, schema)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
