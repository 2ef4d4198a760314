"""Two checklists at the end of a report: where it answers each question, or that a person must answer it.

TRIPOD+AI (Collins and others 2024, BMJ 385:e078378) lists the content of a report of a prediction model;
PROBAST+AI (Moons and others 2025, BMJ 388:e082505) the criteria of its quality and risk of bias. The wording
here is this project's own. TRIPOD+AI's numbers are those of the statement; PROBAST+AI's questions are grouped
by its parts and domains and have no numbers, for they are not its text. An item with an anchor is answered at
that place of the report; if it also names a text of the schema's `card`, only where a person has written it.
"""

from __future__ import annotations

from dataclasses import dataclass

from steps.data.schema import Card


@dataclass(frozen=True)
class Item:
    """An item: its number or domain, its question, the anchors of its answer, and the text that it needs."""

    number: str
    asks: str
    anchors: tuple[str, ...] = ()
    needs: str = ""

    def answered_at(self, card: Card) -> tuple[str, ...]:
        """Anchors of the answer in the report; none where a person has to write it."""
        return () if self.needs and not getattr(card, self.needs) else self.anchors


TRIPOD_AI: tuple[Item, ...] = (
    Item("1", "Title: a prediction model, for whom and of what", ("title",)),
    Item("2", "Summary", ("plain",)),
    Item("3a", "Health care context and reasons for the model", ("use",), "intended_use"),
    Item("3b", "Whom it is for, who uses it and for what", ("use",), "intended_use"),
    Item("3c", "Known health inequalities", ("use",), "inequalities"),
    Item("4", "Aims: development, evaluation or both", ("made",)),
    Item("5a", "Sources of the data and how far they represent people", ("data",), "people"),
    Item("5b", "Dates of the data", ("data",), "setting"),
    Item("6a", "Setting and places", ("data",), "setting"),
    Item("6b", "Who was eligible", ("data",), "people"),
    Item("6c", "Treatments received"),
    Item("7", "Preparation of the data", ("made",)),
    Item("8a", "Outcome: definition and how it was found out", ("outcome",)),
    Item("8b", "Who judged the outcome, where judging it takes skill"),
    Item("8c", "Whether the outcome was judged without knowledge of the answers"),
    Item("9a", "How predictors were chosen", ("predictors",)),
    Item("9b", "Definition of each predictor", ("predictors",)),
    Item("9c", "Who judged the predictors, where judging them takes skill"),
    Item("10", "Size of the data", ("parts",)),
    Item("11", "Missing data", ("missing",)),
    Item("12a", "How the data were divided", ("parts",)),
    Item("12b", "How predictors enter the model", ("model",)),
    Item("12c", "Kind of model, how it was built and its hyperparameters found", ("model",)),
    Item("12d", "Differences between places or clusters"),
    Item("12e", "Measures and plots of performance, with reasons", ("measures", "headlines")),
    Item("12f", "Updating after evaluation"),
    Item("12g", "How risks were calculated for the evaluation", ("made",)),
    Item("13", "Rare outcomes: what was done about them", ("model",)),
    Item("14", "Fairness: how it was looked at", ("fairness",)),
    Item("15", "Output of the model, and thresholds", ("benefit", "thresholds")),
    Item("16", "Differences between rows of development and of evaluation", ("parts",)),
    Item("17", "Ethical approval", ("declarations",), "ethics"),
    Item("18a", "Funding", ("declarations",), "funding"),
    Item("18b", "Conflicts of interest", ("declarations",), "conflicts"),
    Item("18c", "Protocol", ("declarations",), "protocol"),
    Item("18d", "Registration", ("declarations",), "registration"),
    Item("18e", "Where the data can be had"),
    Item("18f", "Where the code can be had"),
    Item("19", "Involvement of patients and the public", ("declarations",), "involvement"),
    Item("20a", "From people to rows: numbers with and without the outcome", ("parts",)),
    Item("20b", "What the people are like"),
    Item("20c", "How people of development and of evaluation differ"),
    Item("21", "People and outcomes in each analysis", ("parts", "subgroups")),
    Item("22", "The full model", ("model",)),
    Item("23a", "Performance with intervals, in subgroups too", ("measures", "subgroups", "cells")),
    Item("23b", "Performance between places or clusters"),
    Item("24", "Results of updating"),
    Item("25", "Interpretation of the results, fairness among them"),
    Item("26", "Limits", ("limits",)),
    Item("27a", "Poor or missing answers when the model is used", ("missing",)),
    Item("27b", "What users have to know and do"),
    Item("27c", "Next steps"),
)

_DOMAINS = ("participants and data", "predictors", "outcome", "analysis")
_D1, _D2, _D3, _D4 = (f"Development (quality): {domain}" for domain in _DOMAINS)
_E1, _E2, _E3, _E4 = (f"Evaluation (risk of bias): {domain}" for domain in _DOMAINS)

# By part and domain as the tool has them; its judgements (low, high, unclear) are a person's.
PROBAST_AI: tuple[Item, ...] = (
    Item(_D1, "Sources of data that suit the aim", ("data",), "people"),
    Item(_D1, "Who was taken in and left out, and that it suits the aim", ("data",), "people"),
    Item(_D2, "Defined and assessed alike for everybody", ("predictors",)),
    Item(_D2, "Assessed without knowledge of the outcome"),
    Item(_D2, "All known at the time at which the model is to be used", ("use",), "intended_use"),
    Item(_D3, "Defined and found out in a fitting way", ("outcome",), "outcome"),
    Item(_D3, "Found out alike for everybody, by a definition that was set before", ("outcome",), "outcome"),
    Item(_D3, "No predictor is part of its definition, or was known when it was found out"),
    Item(_D3, "A fitting time between predictors and outcome", ("outcome",), "outcome"),
    Item(_D4, "Enough people with the outcome", ("parts",)),
    Item(_D4, "Predictors entered fittingly: numbers not cut by the outcome", ("model",)),
    Item(
        _D4, "Everybody who was taken in is analysed, or it is said who is not", ("data", "parts"), "people"
    ),
    Item(_D4, "Missing answers handled fittingly", ("missing",)),
    Item(_D4, "Rare outcomes handled without spoiling the risks", ("model",)),
    Item(_D4, "Overfitting and optimism met: choices made without the rows that judge", ("parts", "model")),
    Item(_D4, "Repeated people, clusters, censoring, survey weights accounted for", ("data",), "weighting"),
    Item(_E1, "People like those for whom the model is meant"),
    Item(
        "", "Rows apart from those of development; in time or place, or by chance alone", ("parts", "limits")
    ),
    Item(_E2, "Defined and assessed as in development", ("predictors",)),
    Item(_E2, "Assessed without knowledge of the outcome"),
    Item(_E3, "Defined and found out as in development", ("outcome",)),
    Item(_E3, "Found out without knowledge of the predictors and of the risk"),
    Item(_E4, "Enough people with the outcome", ("parts", "measures")),
    Item(_E4, "All of the test rows analysed, risks as the saved model gives them", ("made",)),
    Item(_E4, "Missing answers handled as in use", ("missing",)),
    Item(_E4, "Calibration, with a curve", ("headlines", "cells")),
    Item(_E4, "Discrimination", ("headlines", "measures")),
    Item(_E4, "Clinical utility at thresholds that somebody would use", ("benefit", "thresholds")),
    Item(_E4, "Uncertainty of every figure", ("measures",)),
    Item(_E4, "Fairness: performance between groups", ("subgroups", "fairness", "cells")),
    Item("Applicability", "People and data fit the question at hand"),
    Item("Applicability", "Predictors fit the question at hand"),
    Item("Applicability", "Outcome fits the question at hand"),
    Item("Judgement", "Concern in each domain: low, high or unclear"),
)


def anchors() -> frozenset[str]:
    """Every place of a report that the checklists lead to."""
    return frozenset(anchor for item in (*TRIPOD_AI, *PROBAST_AI) for anchor in item.anchors)
