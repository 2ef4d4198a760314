"""One fit of one model of any family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from steps.models import families

if TYPE_CHECKING:
    from steps.data.schema import Schema
    from steps.models.families import Family, Model
    from steps.models.missing_answers import TrainingRows


def fit(
    family: Family,
    params: Mapping[str, Any],
    rows: TrainingRows,
    schema: Schema,
    *,
    seed: int,
    bags: int = 1,
    threads: int = 1,
) -> Model:
    """A model fitted on weighted rows, without calibration.

    params: any of the family's hyperparameters; the others take their defaults. bags: of the glass box, whose
    tables are their mean. Raises UserError for parameters that will not do.
    """
    from threadpoolctl import threadpool_limits

    values = families.check_params(family, params)
    # Histogram boosting gives the same bits with any number of threads; sums of BLAS do not, and gain no time
    # here. OpenMP's threads spin while they wait: more of them than cores would stand still.
    with threadpool_limits({"openmp": threads, "blas": 1}):
        if family == families.GLASS_BOX:
            from steps.models import explainable_boosting

            return explainable_boosting.fit(values, rows, schema, seed=seed, bags=bags, threads=threads)
        from steps.models import pipelines

        model = pipelines.build(family, values, schema, seed)
        model.fit(rows.X, rows.y, model__sample_weight=rows.weight)
        pipelines.forget_extremes(model, schema)
        return model
