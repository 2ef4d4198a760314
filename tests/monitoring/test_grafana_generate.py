"""Dashboards and rules come from Python, and the committed files are fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitoring.grafana import __main__ as generate
from monitoring.grafana import lint
from monitoring.grafana.alerts import rules
from monitoring.grafana.boards import runbook
from monitoring.grafana.style import Size, Words, chart, dashboard, graph, query, range_words, row
from steps.data.disclosure import SMALLEST_CELL

BOARDS = {board["uid"]: board for board in lint.read().dashboards.values()}
READ = ("service", "data", "model")


def test_the_committed_files_are_what_the_generator_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody edits JSON by hand."""
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that renews it."""
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "service.json is stale: run python -m monitoring.grafana" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_panels_flow_over_the_page() -> None:
    """Left to right, a new line where one does not fit, under the highest of the line before."""
    panels = [
        graph(name, "d", [query("up")], size=Size(w, h))
        for name, w, h in (("a", 16, 8), ("b", 8, 9), ("c", 12, 4))
    ]
    placed = dashboard("u", "t", "d", [row("r"), *panels])["panels"]
    assert [(p["id"], p["gridPos"]["x"], p["gridPos"]["y"]) for p in placed] == [
        (1, 0, 0),
        (2, 0, 1),
        (3, 16, 1),
        (4, 0, 10),
    ]


@pytest.mark.parametrize("uid", READ)
def test_the_first_screen_answers_in_colour_and_words(uid: str) -> None:
    """Four or more fields, each with a word in green for well and red for not."""
    top = [panel for panel in BOARDS[uid]["panels"] if panel["gridPos"]["y"] <= 12]
    verdicts = [p for p in top if p.get("options", {}).get("colorMode") == "background_solid"]
    assert len(verdicts) >= 4
    for panel in verdicts:
        results = [m["options"]["result"] for m in panel["fieldConfig"]["defaults"]["mappings"]]
        assert {"green", "red"} <= {result["color"] for result in results}
        assert all(result["text"].strip() for result in results)


@pytest.mark.parametrize("uid", READ)
def test_every_panel_says_what_it_means_in_which_unit(uid: str) -> None:
    """And titles are unique, since alerts and people refer to them."""
    panels = [panel for panel in BOARDS[uid]["panels"] if panel["type"] not in ("row", "alertlist")]
    assert all(panel["description"].endswith((".", "?")) for panel in panels)
    assert all("unit" in panel["fieldConfig"]["defaults"] for panel in panels if panel["type"] != "heatmap")
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)


def test_levels_and_risks_are_named_in_words() -> None:
    """No legend, axis or line is called by the code of a bin."""
    for board in BOARDS.values():
        for panel in board["panels"]:
            legends = [target.get("legendFormat", "") for target in panel.get("targets", [])]
            assert not any("{{bin}}" in legend for legend in legends), panel["title"]
            assert panel.get("options", {}).get("xField") != "bin", panel["title"]
            for step in panel.get("transformations", []) if panel["type"] in ("table", "barchart") else []:
                kept = step["options"].get("include", {}).get("names", [])
                assert "bin" not in kept, panel["title"]


def test_bars_stand_in_the_order_of_the_bins_not_of_their_words() -> None:
    """ "100 and over" comes after "20 to below 30"."""
    words = Words("info", "level", order="bin_order")
    steps = chart("t", "d", {"now": "a", "then": "b"}, "bin", words=words)["transformations"]
    assert [step["id"] for step in steps] == ["joinByField", "sortBy", "filterFieldsByName", "organize"]
    assert steps[1]["options"]["sort"] == [{"field": "bin_order"}]
    assert steps[3]["options"]["renameByName"] == {"Value #B": "now", "Value #C": "then"}


def test_a_reliability_diagram_has_its_diagonal() -> None:
    """Risk against itself, as a line without points."""
    panel = next(panel for panel in BOARDS["model"]["panels"] if panel["title"] == "Reliability")
    risk, diagonal, outcome = (target["expr"] for target in panel["targets"])
    assert risk == diagonal != outcome
    series = {
        one["y"]["matcher"]["options"]: one["x"]["matcher"]["options"] for one in panel["options"]["series"]
    }
    assert series == {"right risks": "risk", "observed": "risk"}


def test_a_version_is_shown_beside_the_one_that_is_served() -> None:
    """Where one is chosen: ranking, calibration, positive rate; none by default."""
    (variable,) = [one for one in BOARDS["model"]["templating"]["list"] if one["name"] == "beside"]
    assert variable["current"]["value"] == "none"
    beside = {
        panel["title"]
        for panel in BOARDS["model"]["panels"]
        if any('model_version="$beside"' in target["expr"] for target in panel.get("targets", []))
    }
    assert {"ROC AUC realised by late labels", "Brier score", "Observed against expected"} <= beside


def test_replicas_can_be_chosen_and_compared() -> None:
    """Panels of the sidecar's own metrics show the chosen ones; a row has a line for each."""
    exprs = [t["expr"] for panel in BOARDS["service"]["panels"] for t in panel.get("targets", [])]
    assert sum('instance=~"$instance"' in expr for expr in exprs) >= 15
    assert sum("by (instance" in expr for expr in exprs) == 3


def test_lines_that_labels_name_are_ranked_by_their_last_value() -> None:
    """The worst feature, replica or reason comes first; levels of a feature keep their own order."""
    for panel in (panel for board in BOARDS.values() for panel in board["panels"]):
        names = [target["legendFormat"] for target in panel.get("targets", [])]
        if panel["type"] != "timeseries" or not all("{{" in name for name in names):
            continue
        legend = panel["options"]["legend"]
        ranked = legend["displayMode"] == "table" and legend["sortBy"] == "Last *" and legend["sortDesc"]
        assert ranked or panel["title"] == "Shares of $one over time", panel["title"]


def test_an_axis_reaches_its_thresholds() -> None:
    """Grafana draws one that lies a little outside across the numbers of the axis."""
    for panel in (panel for board in BOARDS.values() for panel in board["panels"]):
        if panel["type"] != "timeseries" or len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) < 2:
            continue
        defaults = panel["fieldConfig"]["defaults"]
        limits = [step["value"] for step in defaults["thresholds"]["steps"] if step["value"] is not None]
        assert defaults["custom"]["axisSoftMax"] > max(limits), panel["title"]
        assert defaults.get("min", defaults["custom"].get("axisSoftMin", 1e9)) < min(limits), panel["title"]


def test_the_first_minutes_of_a_version_ruin_no_scale() -> None:
    """ROC AUC goes from 0.5 to 1, evidence is logarithmic, figures of few rows or labels are left out."""
    panels = {panel["title"]: panel for uid in READ for panel in BOARDS[uid]["panels"]}
    for title in ("ROC AUC expected without labels", "ROC AUC realised by late labels"):
        defaults = panels[title]["fieldConfig"]["defaults"]
        assert (defaults["min"], defaults["max"]) == (0.5, 1)
    for title in ("Evidence against the model", "Evidence of drift by feature", "Evidence in the window"):
        custom = panels[title]["fieldConfig"]["defaults"]["custom"]
        assert custom["scaleDistribution"]["type"] == "symlog"
    for title, least in {"PSI by feature": 300, "PSI of the risks": 300, "Calibration error": 100}.items():
        assert f">= {least}" in panels[title]["targets"][0]["expr"]


def test_a_small_group_of_people_is_not_shown() -> None:
    """Rows and labels of fewer than ten are called few; figures come from rules that ask for more."""
    panel = next(p for p in BOARDS["people"]["panels"] if p["title"] == "Flagged, found and missed by group")
    figures, counts = panel["targets"][:-2], panel["targets"][-2:]
    assert all(target["expr"].endswith(f">= {SMALLEST_CELL}") for target in counts)
    assert all("group_window:" in target["expr"] for target in figures)


def test_dashboards_link_to_each_other_and_to_the_runbook() -> None:
    """By their common tag."""
    assert set(BOARDS) == {*READ, "people", "runbook"}
    for board in BOARDS.values():
        assert board["links"][0]["tags"] == board["tags"] == ["model-monitoring"]


def test_an_alert_links_to_the_panel_that_it_names() -> None:
    """Numbers change when panels move; titles do not."""
    boards = list(BOARDS.values())
    written = {rule["title"]: rule["annotations"] for _, rule in lint.read().rules()}
    for alert in rules.ALERTS:
        uid, title = alert.panel
        assert written[alert.title]["__panelId__"] == str(generate.panel_id(boards, uid, title))


def test_an_alert_cannot_link_to_a_panel_that_is_not_there() -> None:
    """Generating stops instead."""
    with pytest.raises(LookupError, match="no panel 'Nothing'"):
        generate.panel_id(list(BOARDS.values()), "service", "Nothing")


def test_a_summary_without_a_value_reads_as_one() -> None:
    """The template is guarded against a failed query."""
    summary = rules.summary(rules.ALERTS[0])
    assert "{{ if $values.B }}" in summary
    assert "{{ else }}?{{ end }}" in summary
    assert "{value}" not in summary


def test_no_answer_is_grey_not_red() -> None:
    """A verdict or a figure without data is no alarm, whatever its lowest colour."""
    (special,) = [m for m in range_words([(0, None, "OK", "green")], "no labels") if m["type"] == "special"]
    assert special["options"] == {
        "match": "null+nan",
        "result": {"text": "no labels", "color": "text", "index": 1},
    }
    for panel in (panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] == "stat"):
        last = panel["fieldConfig"]["defaults"]["mappings"][-1]
        assert (last["options"]["match"], last["options"]["result"]["color"]) == ("null+nan", "text")


def test_a_percentage_is_asked_for_as_one() -> None:
    """Templates cannot multiply, so a share of 0.23 comes as 23 from its query; never from the condition."""
    written = {rule["title"]: rule for _, rule in lint.read().rules()}
    for alert in rules.ALERTS:
        assert "{A percent}" not in alert.summary, alert.title
        queries = {one["refId"]: one["model"].get("expr", "") for one in written[alert.title]["data"]}
        for letter in alert.values:
            as_percentage = f"{{{letter} percent}}" in alert.summary
            assert queries[letter].startswith("100 * (") == as_percentage, alert.title


def test_the_runbook_is_cut_at_its_headings() -> None:
    """Each heading of the second level with the text under it, deeper ones inside."""
    assert runbook.chapters("# R\nintro\n## A\none\n### deep\ntwo\n## B\nthree\n") == {
        "A": "one\n### deep\ntwo",
        "B": "three",
    }
