"""Search families and hyperparameters with parallel trials, and refit the best on all training rows.

Each trial is a nested run, and these runs are the only record of the search: after a failure, Ctrl-C or
kill -9 the same command continues from the finished trials, even on another machine. Failed trials are
repeated, and a search that its time limit ended continues when it is called again. The tag `reproducible` is
false where the trials depended on the clock: after a time limit, and on Spark.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from steps.chain import fingerprint
from steps.chain.context import Result
from steps.chain.keep_model import package
from steps.data import prepared
from steps.models import cross_validation, families, fitting, search, trials
from steps.models import preference as preferring

if TYPE_CHECKING:
    from steps.chain.context import Context
    from steps.chain.values import Tune

# Parameters that decide when a search ends or where its trials run, but not the result of a trial: a search
# with other values continues from the same trials.
_LIMITS = ("max_evals", "patience", "timeout_minutes", "recall", "threshold_odds", "engine")

# From all trials and the space that they were drawn from to PNG files by name.
Draw = Callable[[Sequence[trials.Trial], trials.Space], Mapping[str, bytes]]


def work(step: Context[Tune], draw: Draw) -> Result:
    """Continue or start the search, draw its trials, refit the best of each family, and keep one model.

    The drawing code is a parameter, so that a changed colour does not change the search's fingerprint.
    """
    values, data = step.values, step.upstream["preprocess"]
    space = {family: families.SPACE[family] for family in values.families}
    key = _search_key(step)
    done = finished_trials(step, key, space)
    if done:
        step.log.info("tune: continues after %d trials that finished earlier", len(done))
    experiment = step.client.get_run(step.run_id).info.experiment_id
    record = partial(_record, step, key, experiment)
    make_objective = partial(
        cross_validation.make_objective,
        step.cache / "datasets" / data.result_digest / "train.parquet",
        step.project / values.schema,
        fold_count=values.folds,
        rows=cross_validation.TRIAL_ROWS,
        seed=values.seed,
    )
    limits = search.Limits(
        values.max_evals, values.parallelism, values.seed, values.timeout_minutes, values.patience
    )
    if values.engine == "spark":
        from steps.models import spark_search
        from steps.models.spark_session import session

        with session(values.master, "tune", step.project) as spark:
            outcome = spark_search.search(
                make_objective, space, limits, spark, done=done, on_trial=record, progress=True
            )
    else:
        outcome = search.search(make_objective, space, limits, done=done, on_trial=record, progress=True)
    for name, picture in draw(outcome.trials, space).items():
        step.log_picture(f"figures/{name}.png", picture)
    tables = prepared.load(step.cache, data.result_digest, ("train", "validation"))
    parts = fitting.Parts(tables["train"], tables["validation"])
    finalists = {
        family: fitting.fit_model(
            family,
            trial.params,
            parts,
            step.schema,
            recall=values.recall,
            seed=values.seed,
        )
        for family, trial in outcome.best_of_each.items()
    }
    preference = preferring.prefer(finalists)
    fitted, trial = finalists[preference.kept], outcome.best_of_each[preference.kept]
    step.log_json(
        "best.json",
        {
            "trial": trial.number,
            "family": fitted.family,
            "hyperparameters": fitted.params,
            "preference": asdict(preference),
        },
    )
    step.log_metrics({"trials": len(outcome.trials), "best_log_loss": outcome.best.loss or float("nan")})
    result = package(step, fitted, parts)
    tags = {
        "best_trial": str(trial.number),
        "stopped_by": outcome.stopped_by,
        "preference": preference.sentence,
        "reproducible": str(values.engine == "local" and outcome.stopped_by != "timeout").lower(),
    }
    summary = f"{len(outcome.trials)} trials, ended by {outcome.stopped_by}; {result.summary}"
    return replace(
        result, tags={**result.tags, **tags}, summary=summary, lines=[f"tune: {preference.sentence}"]
    )


def _search_key(step: Context[Tune]) -> str:
    """Digest of everything that a trial's outcome depends on. With fresh=true no earlier trial matches."""
    assert step.fingerprint is not None
    parameters = {name: value for name, value in step.fingerprint.parameters.items() if name not in _LIMITS}
    code = {
        file: content
        for module in ("steps.models.search", "steps.models.cross_validation")
        for file, content in fingerprint.code(module, step.project).items()
    }
    key = replace(step.fingerprint, parameters=parameters, code=code, pins={}).digest
    return f"{key}-{step.run_id}" if step.values.fresh else key


def finished_trials(step: Context[Tune], key: str, space: trials.Space) -> list[trials.Trial]:
    """The finished trials of earlier calls of this search."""
    runs = step.chain.find_runs({"search": key})
    # A trial's tags are written last, with its status: a run without it was interrupted. A failed trial may
    # have lacked memory or disk space, so it is repeated.
    finished = [run for run in runs if run.data.tags.get("trial_status") == "finished"]
    return [trials.from_record(run.data.params, run.data.metrics, run.data.tags, space) for run in finished]


def _record(step: Context[Tune], key: str, experiment: str, trial: trials.Trial) -> None:
    """Record a trial as a nested run: three calls, tens of milliseconds."""
    import time

    from mlflow.entities import Metric, Param, RunTag

    record = trials.to_record(trial)
    run = step.client.create_run(
        experiment,
        run_name=f"trial {trial.number:03d} {trial.family}",
        tags={"mlflow.parentRunId": step.run_id, "step": "trial"},
    )
    timestamp = int(time.time() * 1000)
    step.client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, timestamp, 0) for name, value in record.metrics.items()],
        params=[Param(name, value) for name, value in record.params.items()],
        tags=[RunTag(name, value) for name, value in {**record.tags, "search": key}.items()],
    )
    step.client.set_terminated(run.info.run_id, "FINISHED" if trial.loss is not None else "FAILED")


if __name__ == "__main__":
    from steps.chain import process
    from steps.reports import search_plots

    sys.exit(process.execute("tune", partial(work, draw=search_plots.pictures)))
