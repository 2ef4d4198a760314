"""Requests on their way to the model's container and back; everything here runs on one event loop.

A request that is taken is answered exactly once, by the container or by a refusal. Counting follows the
answer, on another thread.
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
# A larger table is not parsed on the way: it travels alone.
TABLE_BYTES = 262_144
SUSPENDED_SECONDS = 60.0
MOST_SUSPENDED = 100

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Member:
    """A request that waits for the container. `key` is what has to be equal to travel with others; None is a
    request that travels alone. `table` holds the rows of a small body that is a plain table, of `size` bytes
    at most."""

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
        """Answer the request, unless its caller was answered otherwise."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Proxy:
    """The way to the container, with its queues."""

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
        """Answer a GET, or a HEAD, by what the container says at a path."""
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
        """Read the rows of a body as far as they can be read, and find whether they may travel with others;
        the refusal of what nobody means, and, where the guard rejects, of what it does not let pass."""
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
        """The refusal of a body that is no plain small table, or None. May run on a thread of the pool."""
        try:
            fault = payloads.fault(content_type, body)
            if fault is not None:
                return refusal("malformed", fault)
            if not rejects:
                return None
            with payloads.one_at_a_time(body):
                most = PARSED_FACTOR * self._settings.body_bytes
                return self._guarded(payloads.columns(content_type, body, self._names, most))
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
        """What must be equal for requests to travel together, or None for one that travels alone."""
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
        """Batch no requests of this form for a while: their answers do not hold one prediction a row."""
        self._suspended.pop(hash(key), None)
        self._suspended[hash(key)] = time.monotonic() + SUSPENDED_SECONDS
        if len(self._suspended) > MOST_SUSPENDED:
            del self._suspended[next(iter(self._suspended))]

    def _answering(self, send: Send[Member]) -> Send[Member]:
        """`send`, with its own failures answered: a bug here must not leave a caller without an answer."""

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
        """Send members of a batch that failed again: in halves, one call at a time, so that one bad row costs
        few calls; after a timeout each alone, for a row may stall the model and the others do not wait."""
        if failed == "timeout":
            for member in members:
                self._singles.put(member)
            return
        middle = len(members) // 2
        for half in (members[:middle], members[middle:]):
            half = self._in_time(half)
            if len(half) == 1:
                await self._send_alone(half[0], "after_failure")
            elif half and (failed := await self._send_joined(half, "after_failure", lambda: None)):
                await self._again(half, failed)

    async def _send_joined(self, members: Sequence[Member], reason: str, release: Callable[[], None]) -> str:
        """Send members as one call and answer them; what failed, if they are not answered."""
        tables = [member.table for member in members if member.table is not None]
        first = members[0].request.head
        fields = [
            field
            for field in first.fields
            if field[0].lower() in ("content-type", *self._settings.batch_headers)
        ]
        expected = sum(member.row_count for member in members)
        with Reservation(self._budget, small=True) as held:
            try:
                held.grow(sum(member.size for member in members))  # the joined body is no larger
                answer = await self._call(
                    "POST",
                    "/invocations",
                    (*fields, VIA),
                    payloads.join(tables),
                    held.grow,
                    reason,
                    len(members),
                )
                release()
                found = None
                if answer.status == 200:
                    held.grow(payloads.parsed_bytes(payloads.JSON_TYPE, answer.body))
                    found = payloads.predictions(answer.body)
            except OverBudgetError:
                return "overload"
            except UpstreamError as error:
                if error.cause != "refused":
                    return error.cause
                for member in members:
                    member.settle(refusal("upstream"))
                return ""
        if found is None or len(found) != expected:
            if answer.status == 200:
                self._suspend(members[0].key)
            return "unsplittable"
        self._observer.put(Seen(first.values["content-type"], b"", True, b"", tables, found))
        start = 0
        for member in members:
            own = found[start : start + member.row_count]
            start += member.row_count
            part = Answer(200, answer.phrase, answer.fields, payloads.answer(own))
            member.settle(self._with_token(member, part, own))
        return ""

    async def _send_alone(self, member: Member, reason: str) -> None:
        """Send a member as it came, and answer it."""
        head, held = member.request.head, member.request.held
        fields = http1.end_to_end(head.fields, head.values)
        if self._settings.bearer_token:
            fields = [field for field in fields if field[0].lower() != "authorization"]
        method, body = ("POST", member.request.body) if member.predicts else ("GET", b"")
        try:
            answer = await self._call(
                method, member.target, (*fields, VIA), body, held.grow, reason, 1 if member.predicts else 0
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
        found = None
        if answered and len(answer.body) <= BYTES_A_PREDICTION * self._settings.feedback_token_rows:
            found = payloads.predictions(answer.body)
        table = member.table
        self._observer.put(
            Seen(
                head.values.get("content-type", ""),
                body if table is None else b"",
                answered,
                answer.body if found is None else b"",
                () if table is None else (table,),
                found,
            )
        )
        member.settle(
            self._with_token(member, answer, found)
            if answered
            else answer._replace(fields=(*answer.fields, VIA))
        )

    def _in_time(self, members: Sequence[Member]) -> list[Member]:
        """The members whose time for an answer has not gone by in the queue; the callers of the others are
        told, the container is spared. Members of a batch that failed have twice that time in all."""
        now, most = time.monotonic(), self._settings.timeout_seconds
        for member in members:
            if now - member.started > most * (2 if member.retried else 1):
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
        """One call of the container, counted; `size` requests for predictions travel with it."""
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

    def _group_places(self, member: Member, size: int) -> Sequence[int]:
        """Places of the groups of a request's rows, 0 for none; all 0 if the rows cannot be read here."""
        groups = self._reference.groups if self._reference else None
        nobody = [0] * size
        if groups is None:
            return nobody
        name, request = groups.feature.name, member.request
        if member.table is not None:
            found: payloads.Columns | None = payloads.table_columns(member.table, (name,))
        elif len(request.body) <= SMALL_BODY:
            content_type = request.head.values.get("content-type", "")
            found = payloads.columns(content_type, request.body, self._names, self._settings.body_bytes)
        else:
            found = None
        column = found.values.get(name, ()) if found else ()
        return [values.group(groups, value) for value in column] if len(column) == size else nobody

    def _with_token(
        self, member: Member, answer: Answer, found: Sequence[payloads.Prediction] | None
    ) -> Answer:
        """The answer, marked if the model is of made-up people; with a feedback token if keys are set, its
        rows are few and each has a risk."""
        keys, reference = self._settings.feedback_keys, self._reference
        answer = answer._replace(fields=(*answer.fields, *self._marks))
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
        score = reference.score
        try:
            places = [score.bin_value(risk) for risk in risks]
            groups = self._group_places(member, len(risks))
            token = feedback_tokens.issue(
                keys,
                reference.model.name,
                self._metrics.version,
                [
                    feedback_tokens.Row(place, risk, group, place >= score.threshold_bin)
                    for place, risk, group in zip(places, risks, groups, strict=True)
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
        """Count and log a failure of the sidecar's own by its type alone: a message could hold a value."""
        self._metrics.observation_failures[part].inc()
        log.warning("could not read or sign (%s): %s", part, type(error).__name__)
