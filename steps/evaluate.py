"""Measure one model on the test split: figures with intervals, subgroups, point scores, report and card.

It reads no alias, so that its result depends on the model and the rows alone and can be reused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from steps.chain.context import FITTED_BY, Result
from steps.chain.fingerprint import digest
from steps.chain.keep_model import FITTED_FILE
from steps.data import documents, prepared, split
from steps.data.files import TARGET_COLUMN, WEIGHT_COLUMN
from steps.data.profile import Profile
from steps.data.release_facts import TERMS_FILES
from steps.measures import evaluation, evaluation_document, survey_weights
from steps.measures.evaluation_document import DataFacts, ModelFacts, Part
from steps.measures.point_scores import TrainingRows
from steps.measures.scored_rows import scored_rows
from steps.models import families, saved, terms
from steps.models.served_model import Terms
from steps.reports import evaluation as report
from steps.reports import html, model_terms, plots

if TYPE_CHECKING:
    import pandas as pd

    from steps.chain.context import Context, StepRun
    from steps.chain.values import Evaluate


def work(step: Context[Evaluate]) -> Result:
    """Score the test rows, measure, and write report and card; the result is the digest of all figures."""
    data = step.upstream["preprocess"]
    fitted = step.upstream[FITTED_BY[step.values.model]]
    model = saved.load(step.fetch(fitted.run_id, "model"))
    reference = step.fetch_json(fitted.run_id, "reference.json")
    tables = prepared.load(step.cache, data.result_digest, ("train", "test"))
    test, training = tables["test"], tables["train"]
    profile = documents.from_json(Profile, step.fetch_json(data.run_id, "profile.json"), "profile.json")
    parts = tuple(Part(name, profile.parts[name].rows, profile.parts[name].positives) for name in split.PARTS)
    features = test[list(step.schema.feature_names)]
    measured = evaluation.evaluate(
        scored_rows(test[TARGET_COLUMN].to_numpy(), families.predict_risk(model, features), test),
        step.schema,
        reference["score"]["threshold"],
        evaluation.Bootstrap(step.values.seed, step.values.replicates),
        about=evaluation.About(
            _model_facts(step, fitted, reference),
            _data_facts(test, reference, parts, _source_note(step, profile)),
            next(part.positives for part in parts if part.name == "validation"),
            terms.sizes(model) if isinstance(model, Terms) else (),
        ),
        predict=lambda frame: families.predict_risk(model, frame),
        training=TrainingRows(training[TARGET_COLUMN].to_numpy(), training),
    )
    if WEIGHT_COLUMN in test:
        weights = test[WEIGHT_COLUMN].to_numpy(dtype=np.float64)
        outcomes, risks = test[TARGET_COLUMN].to_numpy(), families.predict_risk(model, features)
        measured = replace(measured, weighted=survey_weights.weighted(outcomes, risks, weights))
    content = evaluation_document.to_json(measured)
    step.log_json("evaluation.json", content)
    step.log_text("report.html", report.render_report([measured]))
    step.log_text("model_card.md", report.render_card(measured))
    if isinstance(model, Terms):
        about = measured.model
        pages = model_terms.pages(model, step.schema, name=about.name or "", synthetic=about.synthetic)
        for file, text in zip(TERMS_FILES, pages, strict=True):
            step.log_text(file, text)
    step.log_text("figures/calibration.svg", plots.calibration(measured))
    step.log_text("figures/decision_curve.svg", plots.decision_curve(measured))
    step.log_text("figures/roc.svg", plots.roc(measured))
    step.log_metrics(evaluation_document.scalars(measured))
    step.log_datasets({"test": (data.result_digest, len(test))})
    area = html.estimate(measured.metrics.roc_auc, 4)
    summary = f"ROC AUC {area} on {len(test):,} test rows"
    tags = {
        "synthetic": data.tags["synthetic"],
        "data_kind": data.tags["data_kind"],
        "model": step.values.model,
    }
    return Result(digest(content), tags, summary=summary)


def _model_facts(step: Context[Evaluate], fitted: StepRun, reference: Mapping[str, Any]) -> ModelFacts:
    """The facts of the fitted model, from its reference and its run."""
    about, fitted_document = reference["model"], step.fetch_json(fitted.run_id, FITTED_FILE)
    trials = step.client.get_run(fitted.run_id).data.metrics.get("trials")
    search = None if trials is None else f"{trials:.0f} trials, ended by {fitted.tags['stopped_by']}"
    return ModelFacts(
        name=about["name"],
        family=about["family"],
        role=step.values.model,
        run_id=about["run_id"],
        digest=about["digest"],
        trained_at=about["trained_at"],
        recall_target=step.values.recall if step.values.threshold_odds is None else None,
        threshold_odds=step.values.threshold_odds,
        calibration=fitted_document["calibration"],
        hyperparameters=fitted_document["hyperparameters"],
        search=search,
        preference=fitted.tags.get("preference"),
        synthetic=about["synthetic"],
    )


def _source_note(step: Context[Evaluate], profile: Profile) -> str:
    """The schema's notes on the sources of these files, by checksum; empty for other data."""
    checksums = {file.sha256 for file in profile.files}
    return " ".join(source.note for source in step.schema.sources if source.sha256 in checksums)


def _data_facts(
    test: pd.DataFrame, reference: Mapping[str, Any], parts: tuple[Part, ...], note: str
) -> DataFacts:
    """The facts of the rows that are evaluated."""
    positives, about = int(test[TARGET_COLUMN].sum()), reference["data"]
    return DataFacts(len(test), positives, positives / len(test), about["kind"], about["digest"], parts, note)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("evaluate", work))
