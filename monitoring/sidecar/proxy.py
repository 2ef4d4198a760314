"""Requests on their way to the model's container and back.

`Proxy.submit` refuses a request on the spot or takes it; what is taken is answered exactly once, by the
container, by a refusal, or by `abandon` at the end of a stop. Counting follows the answer, on another thread.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from monitoring.reference import Reference
from monitoring.sidecar import feedback_tokens, guard, payloads
from monitoring.sidecar.answers import Answer, refusal
from monitoring.sidecar.batching import Batcher
from monitoring.sidecar.counting import Observer, Seen
from monitoring.sidecar.feedback import bearer_matches
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.model_client import HOP_BY_HOP, Upstream, UpstreamError, header_name
from monitoring.sidecar.settings import Settings

PATHS = {"/invocations": "invocations", "/ping": "ping", "/version": "version"}
FEEDBACK_PATH = "/feedback"
TOKEN_HEADER = "Model-Feedback-Token"  # noqa: S105 - the name of a header
DATA_HEADER = "Model-Data"
NEVER_FORWARDED = frozenset(name.upper().replace("-", "_") for name in (*HOP_BY_HOP, "content-length"))
JOINED_BYTES = 65_536
BYTES_A_PREDICTION = 200
UNSPLITTABLE_IN_A_ROW = 3

log = logging.getLogger(__name__)

Send = Callable[[Sequence["Exchange"], str, Callable[[], None]], None]


class Request(NamedTuple):
    """A request that was read in full. Header names are upper case with underscores, as WSGI has them."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    client: Hashable


class Exchange:
    """One request and, once it is settled, its answer; `done` is then called with it, exactly once."""

    __slots__ = ("_unclaimed", "answer", "client", "done", "key", "kind", "request", "retried", "row_count",
                 "started", "table")  # fmt: skip

    def __init__(self, request: Request, done: Callable[["Exchange"], None]) -> None:
        self.request = request
        self.done = done
        self.started = time.monotonic()
        self.client = request.client
        self.kind = PATHS[request.path]
        self.key: Hashable = None
        self.row_count = 1
        self.table: payloads.Table | None = None
        self.answer: Answer | None = None
        self.retried = False
        self._unclaimed = threading.Lock()

    @property
    def predicts(self) -> bool:
        """Whether this asks the model for predictions."""
        return self.kind == "invocations" and self.request.method == "POST"

    def claim(self) -> bool:
        """True for the first caller only, who then settles the exchange."""
        return self._unclaimed.acquire(blocking=False)


class Proxy:
    """The way to the container, with its queues, for any number of threads."""

    def __init__(
        self,
        settings: Settings,
        reference: Reference | None,
        metrics: Metrics,
        observer: Observer,
        upstream: Upstream,
    ) -> None:
        self._settings = settings
        self._reference = reference
        self._metrics = metrics
        self._observer = observer
        self._upstream = upstream
        self._open: set[Exchange] = set()
        self._reading = threading.Lock()
        self._kinds = payloads.Kinds({f.name: f.is_text for f in reference.features} if reference else {})
        self._names = tuple(feature.name for feature in reference.features) if reference else ()
        is_synthetic = reference is not None and reference.model.synthetic
        self._marks = ((DATA_HEADER, "synthetic"),) if is_synthetic else ()
        self._batch_headers = tuple(name.upper().replace("-", "_") for name in settings.batch_headers)
        self._unsplittable = 0
        self._batches = Batcher(
            self._sending(self._send_batch),
            most_requests=settings.batch_requests,
            most_rows=settings.batch_rows,
            calls=settings.batch_calls,
            wait=settings.batch_wait_ms / 1000,
        )
        self._singles = Batcher(
            self._sending(self._send_single), most_requests=1, most_rows=1, calls=settings.threads, wait=0.0
        )
        metrics.in_flight.set_function(lambda: len(self._open))
        metrics.queue_length.set_function(lambda: self._batches.length + self._singles.length)
        metrics.queue_oldest_wait.set_function(
            lambda: max(self._batches.oldest_wait, self._singles.oldest_wait)
        )

    def start(self) -> None:
        """Start the sending threads."""
        self._batches.start()
        self._singles.start()

    def close(self) -> None:
        """End the sending threads when nothing waits any more, and close idle connections."""
        self._batches.close()
        self._singles.close()
        self._upstream.close()

    @property
    def is_idle(self) -> bool:
        """Whether every request that was taken is answered."""
        return not self._open

    def submit(self, exchange: Exchange) -> bool:
        """Take a request; False if it was refused on the spot: the answer is there and `done` not called."""
        request = exchange.request
        if len(self._open) >= self._settings.requests:
            return self._refuse(exchange, "overload")
        bearer = self._settings.bearer_token
        if bearer and not bearer_matches(request.headers.get("AUTHORIZATION", ""), bearer):
            return self._refuse(exchange, "unauthorized")
        if request.method in ("CONNECT", "TRACE"):
            return self._refuse(exchange, "method")
        if not (request.query.isascii() and request.query.isprintable()):
            return self._refuse(exchange, "malformed")
        if exchange.predicts and len(request.body) <= JOINED_BYTES:
            try:
                self._read(exchange)
            except Exception as error:
                self._fail("body", error)
            broken = self._guarded(exchange) if exchange.table is not None else None
            if broken is not None:
                return self._refuse(exchange, "guard", broken)
        self._open.add(exchange)
        (self._batches if exchange.key is not None else self._singles).submit(exchange)
        return True

    def abandon(self) -> None:
        """Answer whatever is still open with a refusal: the time to finish is over."""
        for exchange in tuple(self._open):
            self._settle(exchange, refusal("stopping"), "stopping")

    def _read(self, exchange: Exchange) -> None:
        """Read the rows of a small body and find whether they may travel with others."""
        content_type = exchange.request.headers.get("CONTENT_TYPE", "")
        if payloads.media_type(content_type) != payloads.JSON_TYPE:
            return
        table = payloads.table(exchange.request.body)
        if table is not None:
            exchange.row_count = len(table.rows)
            exchange.table = table
            exchange.key = self._key(exchange, table, content_type)

    def _key(self, exchange: Exchange, table: payloads.Table, content_type: str) -> Hashable:
        """What must be equal for requests to travel together, or None for one that travels alone."""
        request, settings = exchange.request, self._settings
        headers = request.headers
        if (
            settings.batch_requests == 1
            or request.query
            or "COOKIE" in headers
            or ("AUTHORIZATION" in headers and settings.bearer_token is None)
            or exchange.row_count > settings.batch_rows
            or self._unsplittable >= UNSPLITTABLE_IN_A_ROW
            or payloads.may_change_beside_others(request.body)
        ):
            return None
        kinds = self._kinds.of(table)
        if kinds is None:
            return None
        travelling = tuple(headers.get(name) for name in self._batch_headers)
        return (table.form, table.columns, kinds, content_type, travelling)

    def _guarded(self, exchange: Exchange) -> Answer | None:
        """The refusal of a request whose rows break the schema, if the guard rejects; else None, as for what
        cannot be read here: the container has the last word on that."""
        if self._settings.guard != "reject" or self._reference is None or not exchange.predicts:
            return None
        request, table = exchange.request, exchange.table
        try:
            if table is not None:
                columns: payloads.Columns | None = payloads.table_columns(table, self._names)
            else:
                with self._reading:  # of bodies of any size one at a time is in memory as objects
                    content_type = request.headers.get("CONTENT_TYPE", "")
                    columns = payloads.columns(content_type, request.body, self._names)
            broken = [] if columns is None else guard.violations(self._reference, columns.values)
        except Exception as error:
            self._fail("body", error)
            return None
        return refusal("guard", violations=[item._asdict() for item in broken]) if broken else None

    def _sending(self, send: Send) -> Send:
        """`send`, with its own failures answered: a bug here must not leave a caller without an answer."""

        def send_or_refuse(exchanges: Sequence[Exchange], reason: str, release: Callable[[], None]) -> None:
            try:
                send(exchanges, reason, release)
            except Exception as error:
                log.error("sending failed: %s", type(error).__name__)
                for exchange in exchanges:
                    self._settle(exchange, refusal("internal"), "internal")

        return send_or_refuse

    def _send_single(self, exchanges: Sequence[Exchange], _: str, release: Callable[[], None]) -> None:
        (exchange,) = exchanges
        if self._has_waited_too_long(exchange):
            return
        if exchange.table is None:
            broken = self._guarded(exchange)
            if broken is not None:
                self._settle(exchange, broken, "guard")
                return
        self._send_alone(exchange, "after_failure" if exchange.retried else "alone", release)

    def _send_batch(self, exchanges: Sequence[Exchange], reason: str, release: Callable[[], None]) -> None:
        exchanges = [exchange for exchange in exchanges if not self._has_waited_too_long(exchange)]
        if not exchanges:
            return
        if len(exchanges) == 1:
            self._send_alone(exchanges[0], reason, release)
            return
        tables = [exchange.table for exchange in exchanges if exchange.table is not None]
        first = exchanges[0].request.headers
        headers = [(header_name(name), first[name]) for name in self._batch_headers if name in first]
        headers.append(("Content-Type", first["CONTENT_TYPE"]))
        self._count_call(reason, len(exchanges))
        try:
            answer = self._call("POST", "/invocations", headers, payloads.join(tables))
        except UpstreamError as error:
            release()
            for exchange in exchanges:
                if error.cause == "refused":
                    self._settle(exchange, refusal("upstream"), "upstream")
                else:
                    self._retry(exchange)
            return
        release()
        found = payloads.predictions(answer.body) if answer.status == 200 else None
        if found is None or len(found) != sum(exchange.row_count for exchange in exchanges):
            if answer.status == 200:
                self._unsplittable += 1
                if self._unsplittable == UNSPLITTABLE_IN_A_ROW:
                    log.warning("answers do not hold one prediction a row: requests travel alone from now on")
            for exchange in exchanges:
                self._retry(exchange)
            return
        self._unsplittable = 0
        self._observer.put(Seen(first["CONTENT_TYPE"], b"", True, b"", tables, found))
        start = 0
        for exchange in exchanges:
            own = found[start : start + exchange.row_count]
            start += exchange.row_count
            part = Answer(200, answer.phrase, answer.headers, payloads.answer(own))
            self._settle(exchange, self._with_token(part, own))

    def _send_alone(self, exchange: Exchange, reason: str, release: Callable[[], None]) -> None:
        request = exchange.request
        target = f"{request.path}?{request.query}" if request.query else request.path
        if exchange.predicts:
            self._count_call(reason, 1)
        try:
            answer = self._call(request.method, target, self._forwarded(request.headers), request.body)
        except UpstreamError as error:
            release()
            late = error.cause == "timeout"
            self._settle(exchange, refusal("timeout" if late else "upstream"), "upstream")
            return
        except ValueError:
            release()
            self._settle(exchange, refusal("malformed"), "malformed")
            return
        release()
        if not exchange.predicts:
            self._settle(exchange, answer)
            return
        answered = 200 <= answer.status < 300
        found = None
        if answered and len(answer.body) <= BYTES_A_PREDICTION * self._settings.feedback_token_rows:
            found = payloads.predictions(answer.body)
        table = exchange.table
        self._observer.put(
            Seen(
                request.headers.get("CONTENT_TYPE", ""),
                request.body if table is None else b"",
                answered,
                answer.body if found is None else b"",
                () if table is None else (table,),
                found,
            )
        )
        self._settle(exchange, self._with_token(answer, found) if answered else answer)

    def _has_waited_too_long(self, exchange: Exchange) -> bool:
        """Whether the time for an answer went by in the queue: the caller is told, the container spared.
        Members of a batch that failed, perhaps since the container stalls, have twice that time in all."""
        most = self._settings.timeout_seconds * (2 if exchange.retried else 1)
        if time.monotonic() - exchange.started <= most:
            return False
        self._settle(exchange, refusal("timeout"), "upstream")
        return True

    def _retry(self, exchange: Exchange) -> None:
        exchange.retried = True
        exchange.key = None
        self._singles.submit(exchange)

    def _call(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        started = time.monotonic()
        try:
            answer = self._upstream.send(method, target, headers, body)
        except UpstreamError as error:
            self._metrics.upstream_failures[error.cause].inc()
            raise
        finally:
            self._metrics.upstream_duration.observe(time.monotonic() - started)
        return answer

    def _count_call(self, reason: str, size: int) -> None:
        self._metrics.batches[reason].inc()
        self._metrics.batch_size.observe(size)

    def _forwarded(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """End-to-end headers of a request, without the sidecar's own bearer token."""
        dropped = NEVER_FORWARDED
        if self._settings.bearer_token is not None:
            dropped = dropped | {"AUTHORIZATION"}
        if "CONNECTION" in headers:
            named = headers["CONNECTION"].upper().replace("-", "_").split(",")
            dropped = dropped | {token.strip() for token in named}
        return [(header_name(name), value) for name, value in headers.items() if name not in dropped]

    def _with_token(self, answer: Answer, found: Sequence[payloads.Prediction] | None) -> Answer:
        """The answer, marked if the model is of made-up people; with a feedback token if keys are set, its
        rows are few and each has a risk."""
        keys, reference = self._settings.feedback_keys, self._reference
        answer = answer._replace(added=self._marks)
        if not keys or reference is None:
            return answer
        most = self._settings.feedback_token_rows
        if len(found) > most if found else len(answer.body) > BYTES_A_PREDICTION * most:
            self._metrics.tokens_omitted["too_many_rows"].inc()
            return answer
        risks = [risk for risk in (payloads.risk(item.value) for item in found or ()) if risk is not None]
        if not found or len(risks) != len(found):
            self._metrics.tokens_omitted["no_risk"].inc()
            return answer
        try:
            token = feedback_tokens.issue(
                keys,
                reference.model.name,
                self._metrics.version,
                [reference.score.bin_value(risk) for risk in risks],
                risks,
                now=time.time(),
                random=secrets.token_bytes,
            )
        except Exception as error:
            self._fail("token", error)
            return answer
        self._metrics.tokens.inc()
        return answer._replace(added=(*self._marks, (TOKEN_HEADER, token)))

    def _fail(self, part: str, error: Exception) -> None:
        """Count and log a failure of the sidecar's own by its type alone: a message could hold a value."""
        self._metrics.observation_failures[part].inc()
        log.warning("could not read or sign (%s): %s", part, type(error).__name__)

    def _refuse(self, exchange: Exchange, reason: str, answer: Answer | None = None) -> bool:
        exchange.claim()
        exchange.answer = answer or refusal(reason)
        self._metrics.refused[reason].inc()
        self._count(exchange, exchange.answer)
        return False

    def _settle(self, exchange: Exchange, answer: Answer, refused: str | None = None) -> None:
        if not exchange.claim():
            return
        exchange.answer = answer
        self._open.discard(exchange)
        if refused:
            self._metrics.refused[refused].inc()
        elif exchange.kind == "invocations":
            self._metrics.duration.observe(time.monotonic() - exchange.started)
        self._count(exchange, answer)
        if exchange.key is not None:
            self._batches.returned(exchange.client)
        exchange.done(exchange)

    def _count(self, exchange: Exchange, answer: Answer) -> None:
        self._metrics.requests[exchange.kind][f"{answer.status // 100}xx"].inc()
