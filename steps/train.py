"""Fit one model of a chosen family, with given or default hyperparameters: the baseline of the chain."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from steps.chain.context import Result
from steps.chain.keep_model import package
from steps.data import prepared
from steps.models import families, fitting

if TYPE_CHECKING:
    from steps.chain.context import Context
    from steps.chain.values import Train


def work(step: Context[Train]) -> Result:
    """Fit the model, with MLflow's autologging of parameters and metrics, and keep it as artifacts."""
    family = step.values.family
    params = families.check_params(family, step.values.hyperparameters)
    tables = prepared.load(step.cache, step.upstream["preprocess"].result_digest, ("train", "validation"))
    parts = fitting.Parts(tables["train"], tables["validation"])
    problems: list[str] = []
    fitted = fitting.fit_model(
        family,
        params,
        parts,
        step.schema,
        recall=step.values.recall,
        seed=step.values.seed,
        while_fitting=_autologged(problems),
    )
    result = package(step, fitted, parts)
    if not problems:
        return result
    step.log.warning(
        "the fit did not converge, so its figures may change with more iterations: %s", problems[0]
    )
    return replace(result, tags={**result.tags, "converged": "false"})


@contextlib.contextmanager
def _autologged(problems: list[str]) -> Iterator[None]:
    """Autologging of one fit; the warnings that it did not converge are added to `problems`.

    It is switched off afterwards: it would log every fit of the calibration as well, at seconds each.
    """
    import mlflow.sklearn
    from sklearn.exceptions import ConvergenceWarning

    # It warns about versions newer than those that MLflow tested; this project tests its pins.
    logging.getLogger("mlflow.utils.autologging_utils").setLevel(logging.ERROR)
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, log_input_examples=False, silent=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        unfinished = (warning for warning in caught if issubclass(warning.category, ConvergenceWarning))
        problems += [str(warning.message).splitlines()[0] for warning in unfinished]
    finally:
        mlflow.sklearn.autolog(disable=True)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("train", work))
