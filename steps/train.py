"""Fit one model of a chosen family, with given or default hyperparameters: the baseline of the chain."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING

from steps import fitting, models, preparation
from steps.packaging import package
from steps.step import Result

if TYPE_CHECKING:
    from steps.step import Active


def work(step: Active) -> Result:
    """Fit with MLflow's autologging as the logger of parameters and metrics, then keep the model as a run
    artifact.
    """
    import mlflow.sklearn

    family, given = (
        step.values["family"],
        models.check_params(step.values["family"], step.values["hyperparameters"]),
    )
    tables = preparation.load(step.cache, step.upstream["preprocess"].result_digest, ("train", "validation"))
    # Autologging warns of versions newer than it was tested with; the pins are tested here.
    logging.getLogger("mlflow.utils.autologging_utils").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.autolog(log_models=False, log_datasets=False, log_input_examples=False, silent=True)
        try:
            fitted = fitting.fit_model(
                family,
                given,
                tables["train"],
                tables["validation"],
                step.schema,
                recall=step.values["recall"],
                seed=step.values["seed"],
            )
        finally:
            mlflow.sklearn.autolog(disable=True)
    return package(step, fitted, tables["train"], tables["validation"])


if __name__ == "__main__":
    from steps import chain

    sys.exit(chain.execute("train", work))
