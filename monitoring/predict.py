"""Risk for one person given as options, or for all people in a CSV file, from the served model.

    python -m monitoring.predict --BMI 31 --Age 62 --HighBP yes
    python -m monitoring.predict --csv people.csv --out risks.csv
    python -m monitoring.predict --BMI 31 --Age 62 --HighBP yes --reasons 3

Options, their levels and their help come from the schema. A value that does not fit the schema is explained
before anything is sent; an answer that is left out goes to the model as missing.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from steps.data import readers, reading, sources
from steps.data import values as canonical
from steps.data.errors import UserError
from steps.data.files import local_file
from steps.data.schema import Code, Column, LevelledColumn, Schema, format_code
from steps.data.schema_file import load

if TYPE_CHECKING:
    import pyarrow as pa

    from steps.data.files import LocalFile
    from steps.data.reading import Plan

SCHEMA = Path(__file__).resolve().parents[1] / "data" / "brfss2015.yaml"
URL = "http://127.0.0.1:8080"
SYNTHETIC = "The model was trained on people who do not exist: this says nothing of anybody's health."
BATCH_ROWS = 500
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "y": True, "n": False}
_YES, _NO = {"1", "yes", "true"}, {"0", "no", "false"}
_EMPTY = ("", "na", "nan", "null", "none", "missing", "?")


class BadValueError(ValueError):
    """A value that the schema does not allow; the message says what it allows."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The model's decision threshold, from its `reference.json`."""

    risk: float


def parse_value(column: Column, text: str) -> Code | None:
    """The model's value for a person's text: a number, a level's code or its label.

    None for missing. Raises BadValueError naming the allowed values.
    """
    written = text.strip()
    if written.lower() in _EMPTY:
        return None
    if isinstance(column, LevelledColumn):
        for code, label in column.levels.items():
            if written.lower() in (format_code(code).lower(), label.lower()):
                return code
        truth = _TRUTH.get(written.lower())
        if column.kind == "binary" and truth is not None:
            matches = [code for code, label in column.levels.items() if _says(code, label, truth)]
            if len(matches) == 1:
                return matches[0]
        if not column.is_text:
            number = _number(written)
            for code, label in column.levels.items():
                if number is not None and (number == code or _lies_in(number, label)):
                    return code
        labels = [label.lower() for label in column.levels.values()]
        close = difflib.get_close_matches(written.lower(), labels, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise BadValueError(
            f"{column.name} is {column.meaning[:1].lower()}{column.meaning[1:]}: {_levels(column)}{hint}"
        )
    number = _number(written)
    unit = f" {column.unit}" if column.unit else ""
    if number is not None:
        if number in column.missing:
            return None
        if column.minimum <= number <= column.maximum:
            return number
    raise BadValueError(f"{column.name} is a number from {column.minimum:g} to {column.maximum:g}{unit}")


def parse_person(schema: Schema, answers: Mapping[str, str]) -> tuple[dict[str, Code | None], list[str]]:
    """A row in the schema's order, and a sentence for each answer that does not fit the schema."""
    row: dict[str, Code | None] = {}
    problems = []
    for column in schema.columns:
        try:
            row[column.name] = parse_value(column, answers.get(column.name) or "")
        except BadValueError as error:
            row[column.name] = None
            problems.append(str(error))
    return row, problems


def check_header(schema: Schema, header: Sequence[str] | None) -> list[str]:
    """The columns of a CSV file that the model knows.

    Raises UserError if there are none, or if a name looks like a misspelt column; other names are ignored.
    """
    names = [name.strip() for name in header or ()]
    columns = [name for name in names if name in schema.feature_names]
    absent = [name for name in schema.feature_names if name not in names]
    extra = [name for name in names if name not in schema.feature_names and name != schema.target.name]
    misspellings = [
        f"{name!r} looks like {close[0]!r}"
        for name in extra
        if (close := difflib.get_close_matches(name.lower(), [a.lower() for a in absent], n=1, cutoff=0.85))
    ]
    if not columns or misspellings:
        raise UserError(
            "the file's first line should name the model's columns"
            + (f": {'; '.join(misspellings)}" if misspellings and (columns or len(misspellings) > 1) else "")
            + f"\n  columns: {', '.join(schema.feature_names)}"
        )
    return columns


class Reason(NamedTuple):
    """The effect of a term of a glass box on the log odds: columns, their levels in words, effect."""

    columns: tuple[str, ...]
    levels: tuple[str, ...]
    log_odds: float


class Risks(NamedTuple):
    """Risks from 0 to 1, in the order of the rows; `synthetic`: the model was trained on made-up people.

    `reasons` has the largest effects of each row, if they were requested and the model gives any.
    """

    values: list[float]
    synthetic: bool
    reasons: list[list[Reason] | None]


def opener(url: str) -> urllib.request.OpenerDirector:
    """An opener that uses the proxy of the environment, except for addresses of this machine."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def ask(
    url: str, rows: Sequence[Mapping[str, Code | None]], token: str | None = None, reasons: int = 0
) -> Risks:
    """Ask the model behind `url` for the risks of `rows`, each with this number of reasons.

    Raises UserError, with the remedy, if nothing answers, the request is refused or the answer has no risks.
    """
    columns = list(rows[0])
    body: dict[str, Any] = {
        "dataframe_split": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}
    }
    if reasons:
        body["params"] = {"reasons": reasons}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url should start with http:// or https://, found {url!r}")
    request = urllib.request.Request(f"{url.rstrip('/')}/invocations", json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with opener(url).open(request, timeout=60) as answer:
            synthetic = answer.headers.get("Model-Data") == "synthetic"
            predictions = json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        remedy = {
            401: "give the token with --token-file",
            403: "give the token with --token-file",
            413: "send a smaller file",
            503: "it is overloaded: try again in a moment",
        }.get(error.code, "see the monitoring dashboards")
        raise UserError(f"the service at {url} answered {error.code}: {remedy}") from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"nothing answers at {url} ({reason}): start it with `make serve` or `make stack`, or give its "
            "address with --url"
        ) from None
    except (ValueError, KeyError, TypeError):
        predictions = None
    risks = [_risk(item) for item in predictions] if isinstance(predictions, list) else []
    if len(risks) != len(rows) or None in risks:
        raise UserError(f"the answer of {url} holds no risks: is it a model of this project?")
    assert predictions is not None
    return Risks(
        [risk for risk in risks if risk is not None], synthetic, [_reasons(item) for item in predictions]
    )


def describe(
    schema: Schema,
    row: Mapping[str, Code | None],
    risk: float,
    threshold: Threshold | None = None,
    *,
    synthetic: bool = False,
    reasons: Sequence[Reason] | None = None,
) -> str:
    """The text for a person: the answers as understood, the risk in words, its reasons and its limits."""
    lines = [schema.title, ""]
    width = max(len(name) for name in row)
    for name, value in row.items():
        lines.append(f"  {name:<{width}}  {_shown(schema.column(name), value)}")
    filled = round(risk * 40)
    lines += [
        "",
        f"  Risk {risk:.1%}   [{'#' * filled}{'.' * (40 - filled)}]",
        f"  About {round(risk * 100)} of 100 people with these answers."
        if risk >= 0.005
        else "  Less than 1 of 100.",
    ]
    if threshold is not None:
        side = "at or above" if risk >= threshold.risk else "below"
        lines.append(f"  That is {side} the model's decision threshold of {threshold.risk:.1%}.")
    if reasons is not None:
        lines += ["", "  What moved it most (sums of the model, not causes):"]
        lines += [f"    {_in_words(reason)}" for reason in reasons]
    left_out = [name for name, value in row.items() if value is None]
    if left_out:
        share = f"{len(left_out)} of {len(row)}"
        lines += [
            "",
            f"  {share} answers are missing ({', '.join(left_out)}); the risk is less certain for it.",
        ]
    if synthetic:
        lines += ["", f"  {SYNTHETIC}"]
    return "\n".join([*lines, "", f"  {schema.disclaimer}"])


def _in_words(reason: Reason) -> str:
    """A reason as a factor on the odds: "BMI (42 and over): odds times 2.8"."""
    parts = zip(reason.columns, reason.levels, strict=True)
    named = " with ".join(f"{name} ({level})" for name, level in parts)
    return f"{named}: odds times {math.exp(reason.log_odds):.2f}"


def predict_csv(
    schema: Schema, path: Path, out: TextIO, url: str, token: str | None = None, reasons: int = 0
) -> tuple[int, int, bool]:
    """Copy a file's rows as CSV, with `risk` and `reason` added, and with reasons of the risk `because`.

    Returns the number of rows with a risk, the number without, and whether the model was trained on made-up
    people. The file is read like in `score`. A row that breaks the schema keeps its place, with an empty risk
    and the reason; a row with more or fewer values than the header stops the file. Raises UserError.
    """
    file = replace(local_file(path, path.name), format=schema.format)
    names = readers.header(file)
    plan = reading.plan(file, schema, schema.target.name)
    check_header(schema, plan.renamed(names))
    added = ["risk", "reason", *(["because"] if reasons else [])]
    clashes = [name for name in added if name in names]
    if clashes:
        raise UserError(
            f"{path.name} has a column {clashes[0]}, which the output needs for itself: rename it"
        )
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *added])
    good = bad = 0
    synthetic = False
    for table in readers.tables(file, BATCH_ROWS, None):
        people = _people(table, file, plan, schema)
        rows = [row for row, problems in people if not problems]
        answer = ask(url, rows, token, reasons) if rows else Risks([], synthetic, [])
        risks, because, synthetic = iter(answer.values), iter(answer.reasons), answer.synthetic
        columns = [sources.as_text(table.column(name)).to_pylist() for name in names]
        for line, (_, problems) in zip(zip(*columns, strict=True), people, strict=True):
            risk = "" if problems else f"{next(risks):.6f}"
            explanation = "" if problems else "; ".join(map(_in_words, next(because) or ()))
            writer.writerow([*line, risk, "; ".join(problems), *([explanation] if reasons else [])])
            good, bad = good + (not problems), bad + bool(problems)
    return good, bad, synthetic


def _people(
    table: pa.Table, file: LocalFile, plan: Plan, schema: Schema
) -> list[tuple[dict[str, Code | None], list[str]]]:
    """Each row in the model's values, and a sentence for each answer that does not fit."""
    stored = [name for name in table.column_names if name in plan.names(schema.feature_names)]
    frame = reading.convert(sources.frame_of(table.select(stored), file), plan)
    answers = {
        name: [
            "" if value is None or value != value else canonical.text(value) for value in frame[name].tolist()
        ]
        for name in schema.feature_names
        if name in frame
    }
    return [
        parse_person(schema, {name: texts[row] for name, texts in answers.items()})
        for row in range(len(frame))
    ]


def _says(code: Code, label: str, truth: bool) -> bool:
    """Whether a level of a binary column means yes (`truth`) or no."""
    return bool({format_code(code).lower(), label.lower()} & (_YES if truth else _NO))


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _lies_in(number: float, label: str) -> bool:
    """Whether a label such as "50-54", "80 and over" or "10,000 to below 15,000" spans the number."""
    plain_label = re.sub(r"(?<=\d),(?=\d{3})", "", label)
    digits = r"(\d+(?:\.\d+)?)"
    if span := re.fullmatch(rf"{digits}\s*(?:-|–|to)\s*(below\s+)?{digits}", plain_label):
        low, high = float(span[1]), float(span[3])
        return low <= number < high if span[2] else low <= number <= high
    if above := re.fullmatch(rf"{digits} (?:and over|and above|or more|or over)|{digits}\+", plain_label):
        return number >= float(above[1] or above[2])
    if below := re.fullmatch(rf"(?:below|under|less than) {digits}", plain_label):
        return 0 <= number < float(below[1])
    return False


def _risk(item: Any) -> float | None:
    value: Any = item[-1] if isinstance(item, list) and item else item
    value = value.get("risk") if isinstance(value, dict) else value
    good = isinstance(value, int | float) and 0.0 <= value <= 1.0
    return float(value) if good else None


def _reasons(item: Any) -> list[Reason] | None:
    try:
        return [
            Reason(tuple(r["columns"]), tuple(r["levels"]), float(r["log_odds"])) for r in item["reasons"]
        ]
    except (KeyError, TypeError, ValueError):  # a row of probabilities, or null
        return None


def _levels(column: LevelledColumn) -> str:
    return ", ".join(f"{format_code(code)} ({label})" for code, label in column.levels.items())


def _shown(column: Column, value: Code | None) -> str:
    if value is None:
        return "-"
    if isinstance(column, LevelledColumn):
        return f"{column.levels[value]} ({format_code(value)})"
    return f"{value:g}{' ' + column.unit if column.unit else ''}"


def _parser(schema: Schema) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.predict",
        description=f"Risk from the served model. {schema.disclaimer}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--schema", type=Path, default=SCHEMA, help="schema file (default: data/brfss2015.yaml)"
    )
    parser.add_argument("--url", default=URL, help=f"where the model answers (default: {URL})")
    parser.add_argument(
        "--token-file", type=Path, help="file with the bearer token, where the service asks for one"
    )
    parser.add_argument(
        "--reference", type=Path, help="the model's reference.json, to show its decision threshold"
    )
    parser.add_argument("--csv", type=Path, help="a CSV file of people, its first line naming the columns")
    parser.add_argument(
        "--out", type=Path, help="where the CSV file with risks goes (default: standard output)"
    )
    parser.add_argument(
        "--reasons",
        type=_count,
        default=0,
        metavar="N",
        help="number of reasons to show, where the model has any",
    )
    answers = parser.add_argument_group("answers of one person")
    for column in schema.columns:
        allowed = (
            _levels(column)
            if isinstance(column, LevelledColumn)
            else f"{column.minimum:g} to {column.maximum:g} {column.unit or ''}"
        )
        answers.add_argument(
            f"--{column.name}", metavar="X", help=f"{column.meaning}: {allowed}".strip().replace("%", "%%")
        )
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) > 100:
        raise argparse.ArgumentTypeError("should be a whole number from 0 to 100")
    return int(text)


def _threshold(path: Path | None) -> Threshold | None:
    if path is None:
        return None
    try:
        return Threshold(float(json.loads(path.read_text(encoding="utf-8"))["score"]["threshold"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no reference.json: give the one that was made with the model") from None


def _token(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text(encoding="utf-8").strip()
    except OSError:
        raise UserError(f"the token file {path} cannot be read") from None


def _run(argv: Sequence[str]) -> int:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--schema", type=Path, default=SCHEMA)
    schema = load(early.parse_known_args(argv)[0].schema)
    args = _parser(schema).parse_args([_as_spelled(argument, schema) for argument in argv])
    answers = {name: text for name in schema.feature_names if (text := getattr(args, name)) is not None}
    token, threshold = _token(args.token_file), _threshold(args.reference)
    if args.csv is not None and answers:
        raise UserError("give either --csv or the answers of one person, not both")
    if args.csv is None:
        if not answers:
            raise UserError("no answers given: --help lists them; or give a file with --csv")
        row, problems = parse_person(schema, answers)
        if problems:
            raise UserError("\n  ".join(["these answers do not fit the schema:", *problems]))
        (risk,), synthetic, (reasons,) = ask(args.url, [row], token, args.reasons)
        print(describe(schema, row, risk, threshold, synthetic=synthetic, reasons=reasons))
        if args.reasons and reasons is None:
            print("The model is not additive: its risks have no exact reasons.", file=sys.stderr)
        return 0
    text = io.StringIO()  # a file appears whole or not at all
    good, bad, synthetic = predict_csv(schema, args.csv, text, args.url, token, args.reasons)
    if args.out is None:
        sys.stdout.write(text.getvalue())
    else:
        args.out.write_text(text.getvalue(), encoding="utf-8")
    where = f"; the reasons are in the column reason of {args.out or 'the output'}" if bad else ""
    print(f"{good} people with a risk, {bad} without{where}", file=sys.stderr)
    if synthetic:
        print(SYNTHETIC, file=sys.stderr)
    return 1 if bad else 0


def _as_spelled(argument: str, schema: Schema) -> str:
    """An option with its column spelled as in the schema, whatever its case."""
    name, equals, value = argument.partition("=")
    spelled = {f"--{column.lower()}": f"--{column}" for column in schema.feature_names}
    return f"{spelled.get(name.lower(), name)}{equals}{value}" if name.startswith("--") else argument


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; a user's mistake ends in one message and exit code 1."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
