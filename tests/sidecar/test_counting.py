"""Metrics, what they count, and that nothing else can add to them."""

import json
import socket
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from monitoring.reference import Golden, Reference, parse
from monitoring.sidecar import guard, model_check, payloads
from monitoring.sidecar.counting import Observer, Seen
from monitoring.sidecar.metrics import Metrics
from tests.made_up.sidecars import KEYS, Start, answer_json, people

JSON_TYPE = "application/json"
CSV = {"Content-Type": "text/csv"}


class Watch:
    """An observer on a registry of its own, drained by hand."""

    def __init__(self, reference: Reference | None, limit: int = 10_000, **limits: Any) -> None:
        self.metrics = Metrics(CollectorRegistry(), reference, "7")
        self.observer = Observer(self.metrics, reference, limit, **limits)

    def everything(self) -> dict[str, float]:
        """Every sample by its name and labels."""
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if family.name.startswith("model_") and not sample.name.endswith("_created")
        }

    def put(
        self, body: bytes, risks: list[float], answered: bool = True, content_type: str = JSON_TYPE
    ) -> None:
        answer = json.dumps({"predictions": [[1 - risk, risk] for risk in risks]}).encode()
        table = payloads.table(body)
        self.observer.put(Seen(content_type, body, answered, answer, () if table is None else (table,)))

    def see(
        self, body: bytes, risks: list[float], answered: bool = True, content_type: str = JSON_TYPE
    ) -> None:
        """Count an answer now."""
        self.put(body, risks, answered, content_type)
        self.observer.drain()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            name, {**labels, "model_name": "risk", "model_version": "7"}
        )

    def groups(self) -> dict[str, list[float | None]]:
        """Rows of each group, not flagged and flagged."""
        return {
            group: [self.value("model_group_rows_total", group=group, predicted=flag) for flag in ("0", "1")]
            for group in ("young or middle", "old")
        }

    def bins(self, feature: str) -> list[float | None]:
        return [
            self.value("model_feature_values_total", feature=feature, bin=label)
            for label in {"BMI": ["[12,22)", "[22,30)", "[30,98]"], "Age": ["3", "1", "2"]}[feature]
        ]


@pytest.fixture
def watch(reference: Reference) -> Watch:
    return Watch(reference)


def test_every_series_is_there_at_the_start_with_0(watch: Watch) -> None:
    """A series born with 7 would lose those 7 in every increase(); at least 25 families."""
    families = list(watch.metrics.registry.collect())
    assert len(families) >= 25
    assert all(family.name.startswith(("model_", "sidecar_", "process_")) for family in families)
    assert all(
        sample.value == 0
        for family in families
        if family.type in ("counter", "histogram") and "process" not in family.name
        for sample in family.samples
        if not sample.name.endswith("_created")
    )
    names = {family.name for family in families if family.samples}
    assert {"model_feature_values", "model_scores", "model_feedback", "sidecar_requests"} <= names


def test_the_reference_is_exported(watch: Watch) -> None:
    """Counts of bins and their edges as they are in the file."""
    assert watch.value("model_feature_reference_rows", feature="Age", bin="1") == 50
    assert watch.value("model_score_reference_rows", bin="00") == 50
    assert watch.value("model_score_bin_lower_edge", bin="02") == 0.5
    assert watch.value("model_floor", metric="roc_auc") == 0.75
    assert watch.metrics.registry.get_sample_value("sidecar_reference_loaded") == 1


@pytest.mark.parametrize("copies", [4, 30])
def test_values_are_counted_by_feature_and_fate(watch: Watch, copies: int) -> None:
    """The same for few rows, counted one by one, and for many, counted as arrays."""
    rows = [[15, 1, "Oslo"], [25, 2, "Paris"], [500, 9, "unknown"], [None, 5, "Bergen"]] * copies
    for some in (rows,) if copies > 8 else (rows[:8], rows[8:]):
        body = json.dumps({"dataframe_split": {"columns": ["BMI", "Age", "city"], "data": some}}).encode()
        watch.put(body, [0.1] * len(some))
    watch.observer.drain()
    assert watch.bins("BMI") == [copies, copies, 0]
    assert watch.bins("Age") == [0, copies, copies]
    assert watch.value("model_feature_missing_total", feature="BMI") == copies
    assert watch.value("model_feature_missing_total", feature="Age") == copies
    assert watch.value("model_feature_missing_total", feature="city") == copies
    assert watch.value("model_feature_out_of_range_total", feature="BMI") == copies
    assert watch.value("model_feature_unknown_level_total", feature="Age") == copies
    assert watch.value("model_feature_unknown_level_total", feature="city") == copies
    assert watch.metrics.registry.get_sample_value("sidecar_rows_total") == 4 * copies


@pytest.mark.parametrize("many", [2, 40])
def test_values_that_are_no_numbers_are_unknown_levels(watch: Watch, many: int) -> None:
    """Text that is a number counts as the number, as in the model's server."""
    values = ["25", "x", [1], {}, True, 10**400] * many
    for form in ("dataframe_split", "dataframe_records"):
        rows = [[value, 1, "Oslo"] for value in values]
        names = ["BMI", "Age", "city"]
        part = {"columns": names, "data": rows}
        content = part if form == "dataframe_split" else [dict(zip(names, row, strict=True)) for row in rows]
        watch.see(json.dumps({form: content}).encode(), [0.1] * len(rows))
    assert watch.bins("BMI") == [0, 2 * many, 0]
    assert watch.value("model_feature_unknown_level_total", feature="BMI") == 6 * many
    assert watch.value("model_feature_out_of_range_total", feature="BMI") == 4 * many


def test_risks_are_counted_by_bin_and_by_predicted_class(watch: Watch) -> None:
    """Counts, sums and sums of risk * (1 - risk); the threshold's bin is the first positive one."""
    risks = np.array([0.1, 0.15, 0.3, 0.5, 0.9])
    watch.see(people(*[20] * 10).encode(), [*risks, *risks])
    assert [watch.value("model_scores_total", bin=f"0{i}") for i in range(3)] == [4, 2, 4]
    assert watch.value("model_score_sum_total", bin="02") == pytest.approx(2.8)
    assert watch.value("model_predictions_total", predicted="1") == 4
    assert watch.value("model_prediction_risk_sum_total", predicted="0") == pytest.approx(1.1)
    variance = 2 * (risks * (1 - risks))[:3].sum()
    assert watch.value("model_prediction_variance_sum_total", predicted="0") == pytest.approx(
        variance, abs=6e-3
    )


def test_rows_reach_the_metrics_in_lots(watch: Watch) -> None:
    """Nine people are not seen, the tenth brings all of them; what is left at the stop is dropped."""
    for number in range(9):
        watch.see(people(20 + number).encode(), [0.3])
    assert [watch.bins("BMI"), watch.value("model_scores_total", bin="01")] == [[0, 0, 0], 0]
    watch.see(people(29).encode(), [0.3])
    assert [watch.bins("BMI"), watch.value("model_scores_total", bin="01")] == [[2, 8, 0], 10]
    watch.see(people(20, 21).encode(), [0.3, 0.3])
    watch.observer.start()
    watch.observer.stop()
    assert watch.value("model_scores_total", bin="01") == 10
    assert watch.metrics.registry.get_sample_value("sidecar_lot_rows_dropped_total", {"kind": "rows"}) == 2


@pytest.mark.parametrize("form", ["table", "records", "csv"])
def test_rows_are_counted_by_group_and_class_however_they_came(watch: Watch, form: str) -> None:
    """Young or middle and old people, flagged from 0.5 on; age 9 is missing and belongs to no group."""
    ages, risks = [1, 2, 3, 9] * 10, [0.2, 0.7, 0.9, 0.9] * 10
    rows = [[20, age, "Oslo"] for age in ages]
    names = ["BMI", "Age", "city"]
    if form == "csv":
        text = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)])
        watch.see(text.encode(), risks, content_type="text/csv")
    else:
        records = [dict(zip(names, row, strict=True)) for row in rows]
        split = {"dataframe_split": {"columns": names, "data": rows}}
        content = split if form == "table" else {"dataframe_records": records}
        watch.see(json.dumps(content).encode(), risks)
    assert watch.groups() == {"young or middle": [10, 10], "old": [0, 10]}


def test_each_group_waits_for_ten_of_its_own(watch: Watch) -> None:
    """Nine old people among many others are not seen, the tenth brings them; the rest is dropped."""
    for _ in range(9):
        watch.see(people(*[20] * 10).encode(), [0.2] * 10)
        watch.see(people(20).replace('1, "Oslo"', '3, "Oslo"').encode(), [0.7])
    assert watch.groups() == {"young or middle": [90, 0], "old": [0, 0]}
    watch.see(people(20).replace('1, "Oslo"', '3, "Oslo"').encode(), [0.2])
    assert watch.groups() == {"young or middle": [90, 0], "old": [1, 9]}
    watch.see(people(20).replace('1, "Oslo"', '3, "Oslo"').encode(), [0.2])
    watch.observer.start()
    watch.observer.stop()
    dropped = {"kind": "group_rows"}
    assert watch.metrics.registry.get_sample_value("sidecar_lot_rows_dropped_total", dropped) == 1


def test_sums_leave_rounded_and_lose_nothing(watch: Watch) -> None:
    """To hundredths, the rest with a later lot."""
    for _ in range(50):
        watch.see(people(*[20] * 10).encode(), [0.3033] * 10)
        shown = watch.value("model_score_sum_total", bin="01")
        assert shown is not None
        assert shown == pytest.approx(round(shown, 2), abs=1e-9)
    assert watch.value("model_score_sum_total", bin="01") == pytest.approx(500 * 0.3033, abs=0.005)


def test_between_two_scrapes_no_row_can_be_rebuilt(reference: Reference) -> None:
    """Slow traffic, a scrape after each request: one by one every row shows, in lots of ten none."""
    from monitoring.sidecar.counting import LOT_ROWS

    def rebuilt(lot_rows: int) -> int:
        watch = Watch(reference, lot_rows=lot_rows)
        rng = np.random.default_rng(0)
        cities, count = ["Oslo", "Bergen"], 0
        before = watch.everything()
        for _ in range(1000):
            bmi, age, risk = rng.uniform(12, 98), int(rng.integers(1, 4)), rng.random()
            body = {"columns": ["BMI", "Age", "city"], "data": [[bmi, age, cities[int(rng.integers(2))]]]}
            watch.see(json.dumps({"dataframe_split": body}).encode(), [risk])
            after = watch.everything()
            moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
            values = [name for name in moved if name.startswith("model_feature_values_total")]
            scores = [name for name in moved if name.startswith("model_scores_total")]
            count += len(values) == 3 and len(scores) == 1
            before = after
        return count

    assert (rebuilt(1), rebuilt(LOT_ROWS)) == (1000, 0)


def test_requests_without_predictions_count_only_their_columns(watch: Watch) -> None:
    """Drift is about rows that the model has seen."""
    watch.see(b'{"dataframe_records": [{"BMI": 20, "x": 1}, {"Age": 1}]}', [], answered=False)
    assert watch.bins("BMI") == [0, 0, 0]
    assert watch.value("model_extra_columns_total") == 1
    assert watch.value("model_missing_columns_total") == 1


def test_answers_without_a_risk_are_counted_as_such(watch: Watch) -> None:
    """Three classes, text, or more than 1: no score bin takes them."""
    table = payloads.table(people(*[20] * 12).encode())
    assert table is not None
    body = b'{"predictions": [%s]}' % b", ".join([b'[0.1, 0.2, 0.7], "yes", 1.5'] * 4)
    watch.observer.put(Seen(JSON_TYPE, b"", True, body, (table,)))
    watch.observer.put(Seen(JSON_TYPE, people(20).encode(), True, b"[0.1]"))
    watch.observer.drain()
    assert watch.value("model_unscored_rows_total") == 12
    failed = watch.metrics.registry.get_sample_value("sidecar_observation_failures_total", {"part": "answer"})
    assert failed == 1


def test_a_full_queue_loses_counts_and_says_so(reference: Reference) -> None:
    """It never blocks the caller."""
    watch = Watch(reference, limit=2)
    seen = Seen(JSON_TYPE, people(20).encode(), True, b'{"predictions": [[0.9, 0.1]]}')
    for _ in range(5):
        watch.observer.put(seen)
    watch.observer.drain()
    lost = watch.metrics.registry.get_sample_value(
        "sidecar_observation_failures_total", {"part": "queue_full"}
    )
    assert (lost, watch.metrics.registry.get_sample_value("sidecar_rows_total")) == (3, 2)


def test_the_queue_is_bounded_in_bytes_as_well(reference: Reference) -> None:
    """Few large bodies fill it as many small ones do."""
    watch = Watch(reference)
    seen = Seen("text/csv", b"x" * 20_000_000, True, b"")
    for _ in range(5):
        watch.observer.put(seen)
    lost = watch.metrics.registry.get_sample_value(
        "sidecar_observation_failures_total", {"part": "queue_full"}
    )
    assert lost == 3
    watch.observer.drain()
    watch.see(people(*[20] * 10).encode(), [0.1] * 10)
    assert watch.bins("BMI") == [10, 0, 0]


def test_a_body_that_would_take_much_to_parse_is_not_counted(reference: Reference) -> None:
    """3 million empty objects would be a quarter of a gigabyte."""
    watch = Watch(reference, parsed_bytes=10_000_000)
    body = b'{"inputs": [' + b"{}," * 300_000 + b"{}]}"
    watch.observer.put(Seen(JSON_TYPE, body, True, b'{"predictions": [0.1]}'))
    watch.observer.drain()
    failed = watch.metrics.registry.get_sample_value("sidecar_observation_failures_total", {"part": "body"})
    assert failed == 1


def test_an_answer_that_would_take_much_to_parse_is_not_counted(reference: Reference) -> None:
    """A model that answers one digit a row says a million rows in three megabytes."""
    watch = Watch(reference, parsed_bytes=10_000_000)
    answer = b'{"predictions": [' + b"1, " * 1_000_000 + b"1]}"
    watch.observer.put(Seen("text/csv", b"BMI\n20\n", True, answer))
    watch.observer.drain()
    failed = watch.metrics.registry.get_sample_value("sidecar_observation_failures_total", {"part": "answer"})
    assert failed == 1


def test_predictions_in_the_queue_count_among_its_bytes(reference: Reference) -> None:
    """They are many times as large as their text."""
    watch = Watch(reference)
    predictions = payloads.predictions(b'{"predictions": [' + b"1, " * 99_999 + b"1]}")
    for _ in range(5):
        watch.observer.put(Seen("text/csv", b"", True, b"", (), predictions))
    lost = watch.metrics.registry.get_sample_value(
        "sidecar_observation_failures_total", {"part": "queue_full"}
    )
    assert lost == 4


def test_a_failure_to_count_is_counted_and_its_message_is_not_logged(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next answer is counted as if nothing had been."""

    def fail(*_: Any) -> None:
        raise RuntimeError("canary-value")

    with monkeypatch.context() as patched:
        patched.setattr("monitoring.sidecar.payloads.table_columns", fail)
        watch.see(people(20).encode(), [0.1])
    watch.see(people(*[20] * 10).encode(), [0.1] * 10)
    assert watch.bins("BMI") == [10, 0, 0]
    failed = watch.metrics.registry.get_sample_value("sidecar_observation_failures_total", {"part": "count"})
    assert failed == 1
    assert "canary" not in caplog.text
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("bodies_seen", [300, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_no_input_adds_a_series(watch: Watch, bodies_seen: int) -> None:
    """Neither new column names nor new levels, however many."""

    def names() -> set[str]:
        text = generate_latest(watch.metrics.registry).decode()
        return {line.rsplit(" ", 1)[0] for line in text.splitlines()}

    before = names()
    for number in range(bodies_seen):
        row = {"BMI": number, "Age": number, "city": f"city {number}", f"column {number}": 1}
        watch.see(json.dumps({"dataframe_records": [row]}).encode(), [0.1])
    assert names() == before


def test_without_a_reference_answers_are_still_counted() -> None:
    """Rows, but no features and no scores."""
    watch = Watch(None)
    watch.see(people(20, 30).encode(), [0.1, 0.2])
    assert watch.metrics.registry.get_sample_value("sidecar_rows_total") == 2
    assert watch.metrics.registry.get_sample_value("sidecar_reference_loaded") == 0


def test_the_guard_names_columns_and_rules(reference: Reference) -> None:
    """In the reference's order; missing values and unknown columns break no rule."""
    columns = {
        "BMI": [11, 20, "x", None, float("inf")],
        "city": ["Oslo", "Paris", 3, None, "unknown"],
        "else": [1] * 5,
    }
    assert [tuple(item) for item in guard.violations(reference, columns)] == [
        ("BMI", "out of range", 2),
        ("BMI", "not a number", 1),
        ("Age", "absent", 0),
        ("city", "unknown level", 1),
        ("city", "not text", 1),
    ]


def test_the_guard_asks_for_an_answer_where_the_reference_requires_one(document: dict[str, Any]) -> None:
    """Null, a missing code and NaN are no answer; older references, without the key, ask for none."""
    columns = {
        "BMI": [20, None, float("nan"), "nan"],
        "Age": [1, 9, None, 2],
        "city": ["Oslo", None, "unknown", "Bergen"],
    }
    assert guard.violations(parse(document), columns) == []
    for feature in document["features"]:
        feature["required"] = feature["name"] != "Age"
    assert [tuple(item) for item in guard.violations(parse(document), columns)] == [
        ("BMI", "no answer", 3),
        ("city", "no answer", 2),
    ]


def test_a_row_without_a_required_answer_is_rejected_before_the_container(
    start: Start, scripted: Any, document: dict[str, Any]
) -> None:
    """422 in JSON and in CSV; where the guard only observes, the container decides about the same row."""
    document["features"][0]["required"] = True
    container = scripted()
    sidecar = start(container.port, parse(document), guard="reject")
    expected = [{"column": "BMI", "rule": "no answer", "rows": 1}]
    assert sidecar.ask(body=people(20, None)).json["violations"] == expected
    assert sidecar.ask(body="BMI,Age,city\n,1,Oslo\n", headers=CSV).json["violations"] == expected
    assert container.requests == []
    assert sidecar.ask(body=people(20)).status == 200
    start(container.port, parse(document), guard="observe").ask(body=people(20, None))
    assert len(container.requests) == 2


def test_the_guard_rejects_without_asking_the_container(
    start: Start, scripted: Any, reference: Reference
) -> None:
    """422 names columns and rules and shows no value; what cannot be read is refused, good rows pass."""
    container = scripted()
    sidecar = start(container.port, reference, guard="reject")
    refused = sidecar.ask(body=people(20, 7654.25))
    assert refused.status == 422
    assert refused.json["violations"] == [{"column": "BMI", "rule": "out of range", "rows": 1}]
    assert b"7654" not in refused.body
    assert container.requests == []
    assert sidecar.ask(body=people(20)).status == 200
    assert sidecar.ask(body="{").status == 422
    assert sidecar.ask(body=b"PAR1", headers={"Content-Type": "application/x-parquet"}).status == 422
    assert sidecar.ask(body="BMI,Age,city\n5000,1,Oslo\n", headers=CSV).status == 422
    large = json.dumps({"dataframe_records": [{"BMI": 5000, "Age": 1, "city": "Oslo"}] * 3000})
    assert sidecar.ask(body=large).status == 422
    assert sidecar.value("sidecar_requests_refused_total", reason="guard") == 5
    larger = json.dumps({"dataframe_records": [{"BMI": 25, "Age": 1, "city": "Oslo"}] * 40_000})
    assert sidecar.ask(body=larger).status == 200


@pytest.mark.parametrize("setting", ["observe", "reject"])
def test_a_csv_row_longer_than_its_header_is_refused(
    start: Start, scripted: Any, reference: Reference, setting: str
) -> None:
    """The container would read each answer one column to the left."""
    container = scripted()
    sidecar = start(container.port, reference, guard=setting)
    for rows in ("20,1,Oslo,\n", "20,1,Oslo\n" * 10_000 + "20,1,Oslo,\n"):
        assert sidecar.ask(body="BMI,Age,city\n" + rows, headers=CSV).status == 400
    assert container.requests == []
    assert sidecar.ask(body="BMI,Age,city,\n20,1,Oslo,\n", headers=CSV).status != 422
    assert len(container.requests) == 1


@pytest.mark.parametrize("size", [150, 100_000])
def test_a_document_nested_without_end_is_the_callers_fault(
    start: Start, scripted: Any, reference: Reference, size: int
) -> None:
    """The container would answer with an error of its own, and that would count against it."""
    container = scripted()
    answer = start(container.port, reference).ask(body=b'{"inputs": ' + b"[" * size)
    assert (answer.status, container.requests) == (400, [])


def test_observing_is_the_default(start: Start, scripted: Any, reference: Reference) -> None:
    """The container decides about every row; the sidecar counts."""
    sidecar = start(scripted().port, reference)
    assert sidecar.ask(body=people(*[5000] * 10)).status == 200
    assert sidecar.value("model_feature_out_of_range_total", feature="BMI") == 10


def test_risks_with_reasons_are_counted_and_the_reasons_are_not(
    start: Start, scripted: Any, reference: Reference
) -> None:
    """A request with `params` travels alone, as it came, and its rows count like others."""

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        document = json.loads(body)
        rows = document["dataframe_split"]["data"]
        reasons = [{"term": "BMI", "log_odds": 0.9}] * document["params"]["reasons"]
        answer = {"predictions": [{"risk": row[0] / 100, "reasons": reasons} for row in rows]}
        return answer_json(connection, json.dumps(answer).encode())

    sidecar = start(scripted(script).port, reference, feedback_keys=KEYS)
    document = json.loads(people(*[60] * 10)) | {"params": {"reasons": 3}}
    answer = sidecar.ask(body=json.dumps(document))
    assert len(answer.json["predictions"][0]["reasons"]) == 3
    assert "model-feedback-token" in answer.headers
    assert sidecar.value("model_scores_total", bin="02") == 10
    assert sidecar.value("model_feature_values_total", feature="BMI") == 10


GOLDEN = Golden(("a",), ((1,), (2,)), (0.25, 0.5))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b'{"predictions": [[0.75, 0.25], [0.5, 0.5]]}', True),
        (b'{"predictions": [[0.75, 0.2500001], [0.5, 0.5]]}', True),
        (b'{"predictions": [[0.75, 0.26], [0.5, 0.5]]}', False),
        (b'{"predictions": [[0.75, 0.25]]}', False),
        (b'{"predictions": [0, 1]}', False),
        (b"error", False),
    ],
)
def test_golden_rows_tell_whether_the_container_serves_this_model(answer: bytes, match: bool) -> None:
    """Risks to within a millionth."""
    assert model_check.rows_match(GOLDEN, answer) is match


def test_the_container_is_asked_for_the_golden_rows_at_the_start(
    start: Start, scripted: Any, document: dict[str, Any]
) -> None:
    """And the answer is a metric."""
    from monitoring.reference import parse
    from tests.made_up.sidecars import eventually

    document["golden"].update(rows=[[25, 1, "Oslo"]], scores=[0.25])
    right = start(scripted().port, parse(document))
    eventually(lambda: right.value("model_golden_rows_match") == 1, "the golden rows match")
    document["golden"]["scores"] = [0.3]
    wrong = start(scripted().port, parse(document))
    eventually(
        lambda: wrong.value("sidecar_observation_failures_total", part="golden") == 1, "they do not match"
    )
    assert wrong.value("model_golden_rows_match") == 0
    assert right.value("sidecar_rows_total") == 0
