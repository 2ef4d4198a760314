"""Measure one model on the test split: figures with intervals, subgroups, point scores, report and card.

It reads no alias, so that its result depends on the model and the rows alone and can be reused.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from steps.chain.context import FITTED_BY, Result
from steps.chain.fingerprint import digest
from steps.data import prepared
from steps.data.files import TARGET_COLUMN
from steps.measures import evaluation, evaluation_document
from steps.measures.evaluation_document import ModelFacts
from steps.models import families, saved
from steps.models.served_model import Terms
from steps.reports import evaluation as report
from steps.reports import model_terms, plots

if TYPE_CHECKING:
    from steps.chain.context import Context
    from steps.chain.values import Evaluate


def work(step: Context[Evaluate]) -> Result:
    """Score the test rows, measure, draw and describe; the result is the digest of all figures."""
    data = step.upstream["preprocess"]
    fitted = step.upstream[FITTED_BY[step.values.model]]
    model = saved.load(step.fetch(fitted.run_id, "model"))
    reference = step.fetch_json(fitted.run_id, "reference.json")
    test = prepared.load(step.cache, data.result_digest, ("test",))["test"]
    features = test[list(step.schema.feature_names)]
    about = reference["model"]
    measured = evaluation.evaluate(
        evaluation.scored_rows(test[TARGET_COLUMN].to_numpy(), families.predict_risk(model, features), test),
        step.schema,
        reference["score"]["threshold"],
        seed=step.values.seed,
        replicates=step.values.replicates,
        model=ModelFacts(
            name=about["name"],
            family=about["family"],
            role=step.values.model,
            run_id=about["run_id"],
            digest=about["digest"],
            trained_at=about["trained_at"],
            recall_target=step.values.recall,
            synthetic=about["synthetic"],
        ),
        kind=reference["data"]["kind"],
        digest=reference["data"]["digest"],
        predict=lambda frame: families.predict_risk(model, frame),
    )
    content = evaluation_document.to_json(measured)
    step.log_json("evaluation.json", content)
    step.log_text("report.html", report.render_report([measured]))
    step.log_text("model_card.md", report.render_card(measured))
    if isinstance(model, Terms):
        page = model_terms.render(model, step.schema, name=about["name"], synthetic=about["synthetic"])
        step.log_text("terms.html", page)
        step.log_text("terms.csv", model_terms.table(model))
    step.log_text("figures/calibration.svg", plots.calibration(measured))
    step.log_text("figures/decision_curve.svg", plots.decision_curve(measured))
    step.log_text("figures/roc.svg", plots.roc(measured))
    numbers = evaluation_document.scalars(measured)
    step.log_metrics(numbers)
    step.log_datasets({"test": (data.result_digest, len(test))})
    roc_auc, low, high = (numbers.get(f"roc_auc{end}", math.nan) for end in ("", "_low", "_high"))
    summary = f"ROC AUC {roc_auc:.4f} ({low:.4f} to {high:.4f}) on {len(test):,} test rows"
    tags = {
        "synthetic": data.tags["synthetic"],
        "data_kind": data.tags["data_kind"],
        "model": step.values.model,
    }
    return Result(digest(content), tags, summary=summary)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("evaluate", work))
