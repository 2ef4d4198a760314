"""Forward requests to the model's container and answer them; all of it runs on one event loop.

A request is answered exactly once, by the container or with a refusal. It is counted after the answer, on
another thread.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from monitoring.reference import Reference
from monitoring.sidecar import feedback_tokens, guard, http1, payloads
from monitoring.sidecar import rows as values
from monitoring.sidecar.answers import Answer, refusal
from monitoring.sidecar.batching import Batcher, Send
from monitoring.sidecar.budget import COPIES, PARSED_FACTOR, SMALL_BODY, Budget, OverBudgetError, Reservation
from monitoring.sidecar.counting import Observer, Seen
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.model_client import Upstream, UpstreamError
from monitoring.sidecar.server import Request
from monitoring.sidecar.settings import Settings

TOKEN_HEADER = "Model-Feedback-Token"  # noqa: S105 - the name of a header
DATA_HEADER = "Model-Data"
VIA = ("Via", "1.1 sidecar")
BYTES_A_PREDICTION = 200
# A larger table is not parsed on the way; it is sent alone.
TABLE_BYTES = 262_144
SUSPENDED_SECONDS = 60.0
MOST_SUSPENDED = 100

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Member:
    """A request that waits for the container. Requests with the same `key` may be sent as one call; a request
    with None is sent alone. `table` holds the rows of a small body that is a plain table, of at most `size`
    bytes."""

    request: Request
    target: str
    predicts: bool
    table: payloads.Table | None = None
    size: int = 0
    key: Hashable = None
    row_count: int = 1
    retried: bool = False
    started: float = field(default_factory=time.monotonic)
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, answer: Answer) -> None:
        """Answer the request, unless it has been answered."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Proxy:
    """The queues in front of the container, and the calls from them."""

    def __init__(
        self,
        settings: Settings,
        reference: Reference | None,
        metrics: Metrics,
        observer: Observer,
        upstream: Upstream,
        budget: Budget,
        pool: Executor,
    ) -> None:
        self._settings = settings
        self._reference = reference
        self._metrics = metrics
        self._observer = observer
        self._upstream = upstream
        self._budget = budget
        self._pool = pool
        self._open = 0
        self._retrying = asyncio.Lock()
        self._suspended: dict[int, float] = {}
        self._kinds = payloads.Kinds({f.name: f.is_text for f in reference.features} if reference else {})
        self._names = tuple(feature.name for feature in reference.features) if reference else ()
        is_synthetic = reference is not None and reference.model.synthetic
        self._marks: http1.Fields = (VIA, (DATA_HEADER, "synthetic")) if is_synthetic else (VIA,)
        self._batches = Batcher[Member](
            self._answering(self._send_batch),
            most_requests=settings.batch_requests,
            most_rows=settings.batch_rows,
            calls=settings.batch_calls,
            wait=settings.batch_wait_ms / 1000,
        )
        self._singles = Batcher[Member](
            self._answering(self._send_single), most_requests=1, most_rows=1, calls=settings.threads, wait=0.0
        )
        metrics.in_flight.set_function(lambda: self._open)
        metrics.queue_length.set_function(lambda: self._batches.length + self._singles.length)
        metrics.queue_oldest_wait.set_function(self._oldest_wait)
        metrics.batching_suspended.set_function(
            lambda: sum(end > time.monotonic() for end in list(self._suspended.values()))
        )

    async def predict(self, request: Request) -> Answer:
        """Answer a request for predictions."""
        query = request.head.query
        member = Member(request, f"/invocations?{query}" if query else "/invocations", True)
        answer = await self._answer(member)
        if not answer.refused:
            self._metrics.duration.observe(time.monotonic() - member.started)
        return answer

    async def ask(self, path: str, request: Request) -> Answer:
        """Answer a GET or a HEAD with the container's answer at a path."""
        return await self._answer(Member(request, path, False))

    async def _answer(self, member: Member) -> Answer:
        """Put a member into its queue, and wait for its answer."""
        if self._open >= self._settings.requests:
            return refusal("overload")
        self._open += 1
        try:
            refused = await self._read(member) if member.predicts else None
            if refused is not None:
                return refused
            (self._singles if member.key is None else self._batches).put(member)
            return await member.answer
        finally:
            self._open -= 1

    def _oldest_wait(self) -> float:
        starts = [s for s in (self._batches.oldest_start, self._singles.oldest_start) if s is not None]
        return time.monotonic() - min(starts) if starts else 0.0

    async def _read(self, member: Member) -> Answer | None:
        """Read the rows of a body if possible, and decide whether they may be sent with others. Returns the
        refusal of a faulty body, or of rows that the guard rejects."""
        request = member.request
        content_type = request.head.values.get("content-type", "")
        if "content-type" not in request.head.values:
            return refusal("media_type", "Content-Type is missing: application/json or text/csv, say.")
        rejects = self._settings.guard == "reject" and self._reference is not None
        if len(request.body) > SMALL_BODY:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._examine, content_type, request.body, rejects)
        member.size = payloads.parsed_bytes(content_type, request.body)
        if payloads.media_type(content_type) == payloads.JSON_TYPE and member.size <= TABLE_BYTES:
            request.held.grow(member.size // COPIES)
            try:
                member.table = payloads.table(request.body)
            except Exception as error:
                self._fail("body", error)
        if member.table is None:
            return self._examine(content_type, request.body, rejects)
        member.row_count = len(member.table.rows)
        member.key = self._key(member, member.table, content_type)
        return self._guarded(payloads.table_columns(member.table, self._names)) if rejects else None

    def _examine(self, content_type: str, body: bytes, rejects: bool) -> Answer | None:
        """The refusal of a body that is not a small plain table, or None. May run on a thread of the pool."""
        try:
            fault = payloads.fault(content_type, body)
            if fault is not None:
                return refusal("malformed", fault)
            if not rejects:
                return None
            with payloads.one_at_a_time(body):
                limit = PARSED_FACTOR * self._settings.body_bytes
                return self._guarded(payloads.columns(content_type, body, self._names, limit))
        except Exception as error:
            self._fail("body", error)
            return refusal("guard", guard.UNREADABLE) if rejects else None

    def _guarded(self, columns: payloads.Columns | None) -> Answer | None:
        """The refusal of rows that could not be read, or that break the schema."""
        if columns is None or self._reference is None:
            return refusal("guard", guard.UNREADABLE)
        broken = guard.violations(self._reference, columns.values)
        return refusal("guard", violations=[item._asdict() for item in broken]) if broken else None

    def _key(self, member: Member, table: payloads.Table, content_type: str) -> Hashable:
        """The key of requests that may be sent as one call, or None for a request that is sent alone."""
        head, settings = member.request.head, self._settings
        if (
            settings.batch_requests == 1
            or head.query
            or "cookie" in head.values
            or ("authorization" in head.values and not settings.bearer_token)
            or member.row_count > settings.batch_rows
            or payloads.may_change_beside_others(member.request.body)
        ):
            return None
        kinds = self._kinds.of(table)
        if kinds is None:
            return None
        travelling = tuple(head.values.get(name) for name in settings.batch_headers)
        key = (table.form, table.columns, kinds, content_type, travelling)
        is_suspended = self._suspended and self._suspended.get(hash(key), 0.0) > time.monotonic()
        return None if is_suspended else key

    def _suspend(self, key: Hashable) -> None:
        """Batch no requests of this form for a while: their answers do not have one prediction per row."""
        self._suspended.pop(hash(key), None)
        self._suspended[hash(key)] = time.monotonic() + SUSPENDED_SECONDS
        if len(self._suspended) > MOST_SUSPENDED:
            del self._suspended[next(iter(self._suspended))]

    def _answering(self, send: Send[Member]) -> Send[Member]:
        """Wrap `send` so that its failures are answered: a bug must not leave a caller without an answer."""

        async def answering(members: Sequence[Member], reason: str, release: Callable[[], None]) -> None:
            try:
                await send(members, reason, release)
            except Exception as error:
                log.error("sending failed: %s", type(error).__name__)
                for member in members:
                    member.settle(refusal("internal"))

        return answering

    async def _send_single(self, members: Sequence[Member], _: str, release: Callable[[], None]) -> None:
        for member in self._in_time(members):
            await self._send_alone(member, "after_failure" if member.retried else "alone")

    async def _send_batch(self, members: Sequence[Member], reason: str, release: Callable[[], None]) -> None:
        members = self._in_time(members)
        if not members:
            return
        if len(members) == 1:
            await self._send_alone(members[0], reason)
            return
        failed = await self._send_joined(members, reason, release)
        release()
        if failed:
            for member in members:
                member.retried = True
            async with self._retrying:
                await self._again(members, failed)

    async def _again(self, members: Sequence[Member], failed: str) -> None:
        """Send the members of a failed batch again: in halves, one call at a time, so that a bad row takes
        few calls. After a timeout each is sent alone, so that no other waits for a row that stalls the
        model."""
        if failed == "timeout":
            for member in members:
                self._singles.put(member)
            return
        middle = len(members) // 2
        for part in (members[:middle], members[middle:]):
            part = self._in_time(part)
            if len(part) == 1:
                await self._send_alone(part[0], "after_failure")
            elif part and (failed := await self._send_joined(part, "after_failure", lambda: None)):
                await self._again(part, failed)

    async def _send_joined(self, members: Sequence[Member], reason: str, release: Callable[[], None]) -> str:
        """Send members as one call and answer them; returns the failure if they are not answered."""
        tables = [member.table for member in members if member.table is not None]
        first = members[0].request.head
        fields = [
            field
            for field in first.fields
            if field[0].lower() in ("content-type", *self._settings.batch_headers)
        ]
        expected = sum(member.row_count for member in members)
        with Reservation(self._budget, small=True) as reservation:
            try:
                reservation.grow(sum(member.size for member in members))  # the joined body is not larger
                answer = await self._call(
                    "POST",
                    "/invocations",
                    (*fields, VIA),
                    payloads.join(tables),
                    reservation.grow,
                    reason,
                    len(members),
                )
                release()
                predictions = None
                if answer.status == 200:
                    reservation.grow(payloads.parsed_bytes(payloads.JSON_TYPE, answer.body))
                    predictions = payloads.predictions(answer.body)
            except OverBudgetError:
                return "overload"
            except UpstreamError as error:
                if error.cause != "refused":
                    return error.cause
                for member in members:
                    member.settle(refusal("upstream"))
                return ""
        if predictions is None or len(predictions) != expected:
            if answer.status == 200:
                self._suspend(members[0].key)
            return "unsplittable"
        self._observer.put(Seen(first.values["content-type"], b"", True, b"", tables, predictions))
        start = 0
        for member in members:
            own_predictions = predictions[start : start + member.row_count]
            start += member.row_count
            own_answer = Answer(200, answer.phrase, answer.fields, payloads.answer(own_predictions))
            member.settle(self._with_token(member, own_answer, own_predictions))
        return ""

    async def _send_alone(self, member: Member, reason: str) -> None:
        """Send a member unchanged, and answer it."""
        head, reservation = member.request.head, member.request.held
        fields = http1.end_to_end(head.fields, head.values)
        if self._settings.bearer_token:
            fields = [field for field in fields if field[0].lower() != "authorization"]
        method, body = ("POST", member.request.body) if member.predicts else ("GET", b"")
        try:
            answer = await self._call(
                method,
                member.target,
                (*fields, VIA),
                body,
                reservation.grow,
                reason,
                1 if member.predicts else 0,
            )
        except OverBudgetError:
            member.settle(refusal("overload"))
            return
        except UpstreamError as error:
            member.settle(refusal("timeout" if error.cause == "timeout" else "upstream"))
            return
        if not member.predicts:
            member.settle(answer._replace(fields=(*answer.fields, VIA)))
            return
        answered = 200 <= answer.status < 300
        predictions = None
        if answered and len(answer.body) <= BYTES_A_PREDICTION * self._settings.feedback_token_rows:
            predictions = payloads.predictions(answer.body)
        table = member.table
        self._observer.put(
            Seen(
                head.values.get("content-type", ""),
                body if table is None else b"",
                answered,
                answer.body if predictions is None else b"",
                () if table is None else (table,),
                predictions,
            )
        )
        member.settle(
            self._with_token(member, answer, predictions)
            if answered
            else answer._replace(fields=(*answer.fields, VIA))
        )

    def _in_time(self, members: Sequence[Member]) -> list[Member]:
        """The members whose time limit has not passed in the queue. The others get a timeout, without a call
        of the container. Members of a failed batch have twice the time in all."""
        now, limit = time.monotonic(), self._settings.timeout_seconds
        for member in members:
            if now - member.started > limit * (2 if member.retried else 1):
                member.settle(refusal("timeout"))
        return [member for member in members if not member.answer.done()]

    async def _call(
        self,
        method: str,
        target: str,
        fields: http1.Fields,
        body: bytes,
        grow: Callable[[int], None],
        reason: str,
        size: int,
    ) -> Answer:
        """Call the container once, and count it; `size` requests for predictions are in the call."""
        if size:
            self._metrics.batches[reason].inc()
            self._metrics.batch_size.observe(size)
        started = time.monotonic()
        try:
            return await self._upstream.send(method, target, fields, body, grow)
        except UpstreamError as error:
            self._metrics.upstream_failures[error.cause].inc()
            raise
        finally:
            self._metrics.upstream_duration.observe(time.monotonic() - started)

    def _group_indices(self, member: Member, size: int) -> Sequence[int]:
        """Indices of the groups of a request's rows, 0 for none; all 0 if the rows cannot be read here."""
        groups = self._reference.groups if self._reference else None
        no_groups = [0] * size
        if groups is None:
            return no_groups
        name, request = groups.feature.name, member.request
        if member.table is not None:
            columns: payloads.Columns | None = payloads.table_columns(member.table, (name,))
        elif len(request.body) <= SMALL_BODY:
            content_type = request.head.values.get("content-type", "")
            columns = payloads.columns(content_type, request.body, self._names, self._settings.body_bytes)
        else:
            columns = None
        column = columns.values.get(name, ()) if columns else ()
        return [values.group(groups, value) for value in column] if len(column) == size else no_groups

    def _with_token(
        self, member: Member, answer: Answer, predictions: Sequence[payloads.Prediction] | None
    ) -> Answer:
        """The answer, marked if the model was trained on made-up people; with a feedback token if keys are
        set, its rows are few and each has a risk."""
        keys, reference = self._settings.feedback_keys, self._reference
        answer = answer._replace(fields=(*answer.fields, *self._marks))
        if not keys or reference is None:
            return answer
        row_limit = self._settings.feedback_token_rows
        if len(predictions) > row_limit if predictions else len(answer.body) > BYTES_A_PREDICTION * row_limit:
            self._metrics.tokens_omitted["too_many_rows"].inc()
            return answer
        risks = [
            risk for risk in (payloads.risk(item.value) for item in predictions or ()) if risk is not None
        ]
        if not predictions or len(risks) != len(predictions):
            self._metrics.tokens_omitted["no_risk"].inc()
            return answer
        score = reference.score
        try:
            score_bins = [score.bin_value(risk) for risk in risks]
            groups = self._group_indices(member, len(risks))
            token = feedback_tokens.issue(
                keys,
                reference.model.name,
                self._metrics.version,
                [
                    feedback_tokens.Row(score_bin, risk, group, score_bin >= score.threshold_bin)
                    for score_bin, risk, group in zip(score_bins, risks, groups, strict=True)
                ],
                groups_key=self._metrics.groups_key,
                now=time.time(),
                random=secrets.token_bytes,
            )
        except Exception as error:
            self._fail("token", error)
            return answer
        self._metrics.tokens.inc()
        return answer._replace(fields=(*answer.fields, (TOKEN_HEADER, token)))

    def _fail(self, part: str, error: Exception) -> None:
        """Count and log a failure of the sidecar by its type only: a message could contain a value."""
        self._metrics.observation_failures[part].inc()
        log.warning("could not read or sign (%s): %s", part, type(error).__name__)
