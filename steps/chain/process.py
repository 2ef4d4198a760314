"""The process of one step: read parameters, take the lock, reuse or compute the result, set tags."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steps.chain import console, locks, parameters, registry, tracking
from steps.chain.context import NO_DATASETS, Context, Result
from steps.chain.pipeline import PROJECT, STEPS, Chain, cache_folder, listed
from steps.chain.values import Reusable
from steps.data import processors
from steps.data.errors import UserError
from steps.data.schema_file import load

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from steps.chain.values import Fit, Values
    from steps.data.schema import Schema

log = logging.getLogger("steps.chain")

Work = Callable[[Context[Any]], Result]


def execute(step: str, work: Work, argv: Sequence[str] | None = None) -> int:
    """Run a step from its command line to its exit code.

    Exit codes: 0 done or reused; 1 an error that a person can correct, whose message says how; 130 stopped by
    Ctrl-C. Any other error is a fault of this project and shows its traceback.
    """
    return command(step, partial(_execute, step, work, argv))


def command(name: str, work: Callable[[], int]) -> int:
    """Run a command and return its exit code; a UserError is shown as one sentence, without a traceback."""
    console.configure()
    tracking.set_defaults()
    processors.let_waiting_threads_sleep()
    logger = logging.getLogger(f"steps.{name}")
    try:
        return work()
    except UserError as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("stopped; the same command continues from here")
        return 130
    except Exception as error:
        store_error = tracking.as_user_error(error)
        if store_error is None:
            raise
        logger.error("%s", store_error)
        return 1


def _execute(step: str, work: Work, argv: Sequence[str] | None) -> int:
    values, schema, client = _opened(step, argv)
    import mlflow

    cache, uri = cache_folder(), mlflow.get_tracking_uri()
    with ExitStack() as stack:
        depth = stack.enter_context(locks.chain_lock(locks.lock_path(uri, cache), step))
        run_id = stack.enter_context(mlflow.start_run()).info.run_id
        if depth == 0 and not tracking.is_remote(uri):
            tracking.close_abandoned(client, PROJECT, keep={run_id})
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chain = Chain(client, schema, values.schema, cache)
        context = Context(step, values, schema, client, run_id, PROJECT, cache, scratch, chain)
        context.tag({"step": step, "schema": schema.name})
        if depth == 0:  # `mlflow run` gives it a random name; a nested run has its step's name
            context.tag({"mlflow.runName": step})
        if depth == 0 and tracking.is_remote(uri):
            _try_server(context)
        result = _reuse_or_work(context, chain, work) if STEPS[step].results else work(context)
    for line in result.lines:
        context.log.info(line)
    if result.summary and depth == 0:  # the chain shows the summary of a nested run, with its time
        context.log.info("%s: %s", step, result.summary)
    return result.exit_code


def _opened(step: str, argv: Sequence[str] | None) -> tuple[Values, Schema, MlflowClient]:
    """Parameters, schema and store; an error in one of them removes the verdict of an earlier run."""
    spec = STEPS[step]
    try:
        values = parameters.parse(spec.values, PROJECT, argv)
        return values, load(PROJECT / values.schema), tracking.connect()
    except UserError:
        if spec.judges:
            (PROJECT / spec.judges).unlink(missing_ok=True)
        raise


def _try_server(context: Context[Values]) -> None:
    """Check the features of a server before anything is computed. Raises UserError without a registry."""
    if context.name in ("main", "promote"):
        registry.require_registry(context.client, context.schema.name)
    if not tracking.keeps_datasets(context.client, context.run_id):
        os.environ[NO_DATASETS] = "1"
        log.warning(
            "this tracking server keeps no data set records, so the runs go without; the digests of the data "
            "are in the runs' tags"
        )


def _reuse_or_work(context: Context[Values], chain: Chain, work: Work) -> Result:
    step, values = context.name, context.values
    upstream = chain.results_above(step, values)
    decision = chain.decide(step, values, upstream)
    fresh = isinstance(values, Reusable) and values.fresh
    if decision.reusable is not None and not fresh:
        earlier = decision.reusable.run_id
        context.tag({"reused_from": earlier})
        return Result(summary=f"nothing to do, run {earlier[:8]} has this result already")
    because = "fresh=true" if fresh else listed(decision.reasons, most=20)
    context.tag({"because": because[:500]})
    active = replace(context, upstream=upstream, fingerprint=decision.fingerprint)
    if decision.same_fit is not None and not fresh:
        from steps.chain import keep_model

        result = keep_model.pack_again(cast("Context[Fit]", active), decision.same_fit)
    else:
        result = work(active)
    summary = {"summary": result.summary[:500]} if result.summary else {}
    # All at once and last: a run without a fingerprint is never reused, so an unfinished run never is.
    context.tag({"result_digest": result.digest, **summary, **result.tags, **decision.fingerprint.tags()})
    return result
