"""Count answered rows by feature bin and predicted risks by score bin, on a separate thread.

An answer is put on a queue that is bounded in answers and in bytes, without waiting. A full queue loses
counts, and the losses are counted. Values are kept only in this queue, until they are counted. Counts reach
the metrics in lots of several rows (`lots`).
"""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from monitoring.reference import MISSING, OUT_OF_RANGE, UNKNOWN, Feature, Reference
from monitoring.sidecar import payloads
from monitoring.sidecar import rows as values
from monitoring.sidecar.budget import Budget, OverBudgetError
from monitoring.sidecar.lots import Lot
from monitoring.sidecar.metrics import FeatureCounters, Metrics

INTERVAL = 0.05
MOST_ROWS_AT_ONCE = 5_000
MOST_BYTES = 67_108_864
MOST_PARSED_BYTES = 167_772_160
LOT_ROWS = 10
BYTES_A_CELL, BYTES_A_PREDICTION = 32, 320
FEW_ROWS = 8

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """An answered call: the parts that were parsed on the way, and the bodies of the other parts."""

    content_type: str
    body: bytes
    answered: bool
    answer: bytes
    tables: Sequence[payloads.Table] = ()
    predictions: Sequence[payloads.Prediction] | None = None

    @property
    def size(self) -> int:
        """Approximate size in memory, in bytes."""
        cells = sum(len(table.rows) * len(table.columns) for table in self.tables)
        predictions = BYTES_A_PREDICTION * len(self.predictions or ())
        return len(self.body) + len(self.answer) + BYTES_A_CELL * cells + predictions


class Observer:
    """Bounded queue of answers to count, and the thread that counts them.

    At most `limit` answers wait, in bytes of `budget`; a body that would take more than `parsed_bytes` when
    it is parsed is not counted. `lot_rows` rows reach the metrics together.
    """

    def __init__(
        self,
        metrics: Metrics,
        reference: Reference | None,
        limit: int,
        *,
        budget: Budget | None = None,
        parsed_bytes: int = MOST_PARSED_BYTES,
        lot_rows: int = LOT_ROWS,
    ) -> None:
        self._metrics = metrics
        self._budget = budget or Budget(MOST_BYTES)
        self._parsed_bytes = parsed_bytes
        self._lot = Lot(lot_rows)
        self._groups = reference.groups if reference else None
        self._group_lots = [Lot(lot_rows) for _ in range(metrics.group_count)]
        self._reference = reference
        self._names = tuple(feature.name for feature in reference.features) if reference else ()
        self._limit = limit
        self._queue: deque[Seen] = deque()
        self._stopped = threading.Event()
        self._draining = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        """Start counting."""
        self._thread.start()

    def put(self, answer: Seen) -> None:
        """Queue an answer to be counted, without blocking or raising."""
        try:
            if len(self._queue) >= self._limit:
                raise OverBudgetError
            self._budget.reserve(answer.size, large=True)
        except OverBudgetError:
            self._metrics.observation_failures["queue_full"].inc()
            return
        self._queue.append(answer)

    def stop(self) -> None:
        """Count what is queued and end the thread; the rows of an unfilled lot are dropped."""
        self._stopped.set()
        self._thread.join()
        self._metrics.dropped["rows"].inc(self._lot.rows)
        self._metrics.dropped["group_rows"].inc(sum(lot.rows for lot in self._group_lots))
        if self._lot.rows:
            log.info("%d rows of an unfilled lot are not counted", self._lot.rows)

    def drain(self) -> None:
        """Count all queued answers. Small tables with the same columns are counted together."""
        with self._draining:
            while self._queue:
                tables: list[payloads.Table] = []
                flags: list[bool | None] = []
                rows = counted_bytes = 0
                while self._queue and rows < MOST_ROWS_AT_ONCE:
                    answer = self._queue.popleft()
                    counted_bytes += answer.size
                    flagged: Sequence[bool | None] = ()
                    with self._failing("count"), payloads.one_at_a_time(answer.answer):
                        flagged = self._count_predictions(answer)
                    if not answer.tables or not answer.answered:
                        with self._failing("count"), payloads.one_at_a_time(answer.body):
                            self._count_body(answer, flagged)
                        continue
                    for table in answer.tables:
                        if tables and (table.form, table.columns) != (tables[0].form, tables[0].columns):
                            self._count_tables(tables, flags)
                            tables, flags = [], []
                        tables.append(table)
                    row_count = sum(len(table.rows) for table in answer.tables)
                    rows += row_count
                    flags += flagged if len(flagged) == row_count else [None] * row_count
                if tables:
                    self._count_tables(tables, flags)
                self._budget.release(counted_bytes)
                self._lot.offer()
                for lot in self._group_lots:
                    lot.offer()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            with self._failing("count"):
                self.drain()
        with self._failing("count"):
            self.drain()

    @contextlib.contextmanager
    def _failing(self, part: str) -> Any:
        """Count and log a failure by its type only: its message could contain a value."""
        try:
            yield
        except Exception as error:
            self._metrics.observation_failures[part].inc()
            log.warning("could not %s: %s", part, type(error).__name__)

    def _count_tables(self, tables: Sequence[payloads.Table], flagged: Sequence[bool | None]) -> None:
        with self._failing("count"):
            joined = payloads.Table(
                tables[0].form, tables[0].columns, [row for table in tables for row in table.rows]
            )
            columns = payloads.table_columns(joined, self._names)
            self._count_columns(columns, True, len(tables))
            self._count_groups(columns, flagged)

    def _count_body(self, answer: Seen, flagged: Sequence[bool | None]) -> None:
        """Count a body of any format; without predictions, only its columns are counted."""
        columns = (
            payloads.table_columns(answer.tables[0], self._names)
            if answer.tables
            else payloads.columns(answer.content_type, answer.body, self._names, self._parsed_bytes)
        )
        if columns is not None:
            self._count_columns(columns, answer.answered, 1)
            self._count_groups(columns, flagged)
        elif answer.answered:
            self._metrics.observation_failures["body"].inc()

    def _count_columns(self, columns: payloads.Columns, answered: bool, requests: int) -> None:
        if self._reference is None:
            return
        absent = 0
        for feature in self._reference.features:
            column = columns.values.get(feature.name)
            if column is None:
                absent += 1
            elif answered:
                self._count_values(feature, self._metrics.features[feature.name], column)
        if absent:
            self._metrics.missing_columns.inc(absent * requests)
        if columns.others:
            self._metrics.extra_columns.inc(columns.others * requests)

    def _count_groups(self, columns: payloads.Columns, flagged: Sequence[bool | None]) -> None:
        """Count rows by group and class, each group in its own lot. Nothing is counted where the numbers of
        rows and of predictions differ."""
        column = columns.values.get(self._groups.feature.name, ()) if self._groups else ()
        if self._groups is None or len(column) != len(flagged):
            return
        for value, is_flagged in zip(column, flagged, strict=True):
            index = values.group(self._groups, value)
            if index and is_flagged is not None:
                lot = self._group_lots[index - 1]
                lot.rows += 1
                lot.count(self._metrics.group_rows[index - 1][is_flagged], 1)

    def _count_predictions(self, answer: Seen) -> Sequence[bool | None]:
        """Count the predictions of an answer; returns whether each row was flagged, None without a risk."""
        if not answer.answered:
            return ()
        if answer.predictions is not None:
            predictions: list[Any] | None = [prediction.value for prediction in answer.predictions]
        else:
            predictions = payloads.predicted_values(answer.answer, self._parsed_bytes)
        if predictions is None:
            self._metrics.observation_failures["answer"].inc()
            return ()
        self._metrics.rows.inc(len(predictions))
        self._lot.rows += len(predictions)
        if self._reference is None:
            return ()
        score = self._reference.score
        flagged: list[bool | None] = []
        unscored = 0
        totals: dict[int, tuple[int, float, float]] = {}
        for value in predictions:
            risk = payloads.risk(value)
            if risk is None:
                unscored += 1
                flagged.append(None)
                continue
            score_bin = score.bin_value(risk)
            flagged.append(score_bin >= score.threshold_bin)
            count, total, squares = totals.get(score_bin, (0, 0.0, 0.0))
            totals[score_bin] = (count + 1, total + risk, squares + risk * risk)
        if unscored:
            self._lot.count(self._metrics.unscored_rows, unscored)
        for score_bin, (count, total, squares) in totals.items():
            predicted = "1" if score_bin >= score.threshold_bin else "0"
            self._lot.count(self._metrics.scores[score_bin], count)
            self._lot.sum(self._metrics.score_sums[score_bin], total)
            self._lot.count(self._metrics.predictions[predicted], count)
            self._lot.sum(self._metrics.prediction_risk_sums[predicted], total)
            self._lot.sum(self._metrics.prediction_variance_sums[predicted], max(0.0, total - squares))
        return flagged

    def _count_values(self, feature: Feature, counters: FeatureCounters, column: Sequence[Any]) -> None:
        """Count values of a feature: few values one by one, many as an array."""
        other_counters = {
            MISSING: counters.missing,
            OUT_OF_RANGE: counters.out_of_range,
            UNKNOWN: counters.unknown,
        }
        array = values.array(feature, column) if len(column) > FEW_ROWS else None
        if array is None:
            for value in column:
                index = values.fate(feature, value)
                self._lot.count(counters.bins[index] if index >= 0 else other_counters[index], 1)
            return
        counts = feature.count(array)
        increments = (*counts.bins.tolist(), *counts[1:])
        for counter, count in zip((*counters.bins, *other_counters.values()), increments, strict=True):
            if count:
                self._lot.count(counter, count)
