"""Fit one model of a chosen family, with given or default hyperparameters: the baseline of the chain."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.chain.context import Result
from steps.chain.keep_model import package
from steps.data import prepared
from steps.models import families, fitting

if TYPE_CHECKING:
    from steps.chain.context import Context
    from steps.chain.values import Train


def work(step: Context[Train]) -> Result:
    """Fit, with autologging as the logger of parameters and metrics, and keep the model as artifacts."""
    family = step.values.family
    given = families.check_params(family, step.values.hyperparameters)
    tables = prepared.load(step.cache, step.upstream["preprocess"].result_digest, ("train", "validation"))
    fitted = fitting.fit_model(
        family,
        given,
        tables["train"],
        tables["validation"],
        step.schema,
        recall=step.values.recall,
        seed=step.values.seed,
        while_fitting=_autologged(),
    )
    return package(step, fitted, tables["train"], tables["validation"])


@contextlib.contextmanager
def _autologged() -> Iterator[None]:
    """Autologging of one fit. Left on, it would log every fit of the calibration as well, at seconds each."""
    import mlflow.sklearn

    # It warns of versions newer than those it was tested with; the chain tests these pins.
    logging.getLogger("mlflow.utils.autologging_utils").setLevel(logging.ERROR)
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, log_input_examples=False, silent=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        mlflow.sklearn.autolog(disable=True)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("train", work))
