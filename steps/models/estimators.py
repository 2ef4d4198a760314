"""One fit of a model of any family."""

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

    params: any of the family's hyperparameters; the others take their defaults. bags: number of bags of a
    glass box; its tables are the mean over them. Raises UserError for unknown parameters and for values out
    of range.
    """
    from threadpoolctl import threadpool_limits

    values = families.check_params(family, params)
    # Histogram boosting gives the same bits with any number of threads. BLAS does not, and more threads gain
    # it no time here. OpenMP threads spin while they wait, so more threads than cores slow each other down.
    with threadpool_limits({"openmp": threads, "blas": 1}):
        if family == families.GLASS_BOX:
            from steps.models import explainable_boosting

            return explainable_boosting.fit(values, rows, schema, seed=seed, bags=bags, threads=threads)
        from steps.models import pipelines

        model = pipelines.build(family, values, schema, seed)
        model.fit(rows.X, rows.y, model__sample_weight=rows.weight)
        pipelines.forget_extremes(model, schema)
        return model
