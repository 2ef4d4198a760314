"""`monitoring.predict`: what a person types, what the model is asked, what the person reads."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from monitoring import predict
from steps.data.errors import UserError
from steps.data.schema import Column, LevelledColumn, NumericColumn, Schema
from steps.data.schema_file import load

ROOT = Path(__file__).resolve().parents[2]
AGE = LevelledColumn("Age", "ordinal", "Age group", levels={1.0: "18-24", 2.0: "25-29"})
WEIGHT = NumericColumn("Weight", "Body weight", unit="kg", minimum=30, maximum=300, missing=(999.0,))
CITY = LevelledColumn("City", "nominal", "Where", levels={"a": "Aachen", "b": "Bonn"})


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load(ROOT / "data" / "brfss2015.yaml")


@pytest.fixture
def served() -> Iterator[tuple[str, list[Any], Callable[[int, Any], None]]]:
    """A stand-in for the traffic port: its address, the bodies that arrived, and how to set its answer."""
    bodies: list[Any] = []
    reply: dict[str, Any] = {"status": 200, "body": None, "headers": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            rows = len(bodies[-1]["dataframe_split"]["data"])
            body = reply["body"] or {"predictions": [[0.75, 0.25]] * rows}
            self.send_response(reply["status"])
            for name, value in reply["headers"].items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield (
            f"http://127.0.0.1:{server.server_port}",
            bodies,
            lambda status, body, headers=None: reply.update(status=status, body=body, headers=headers or {}),
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        (AGE, "2", 2.0),
        (AGE, "2.0", 2.0),
        (AGE, "25-29", 2.0),
        (AGE, "27", 2.0),
        (AGE, " na ", None),
        (WEIGHT, "81.5", 81.5),
        (WEIGHT, "81,5", 81.5),
        (WEIGHT, "30", 30.0),
        (WEIGHT, "999", None),
        (WEIGHT, "", None),
        (CITY, "b", "b"),
        (CITY, "bonn", "b"),
    ],
)
def test_a_value_is_understood_as_code_label_or_number(column: Column, text: str, value: Any) -> None:
    """People may write a level's code, its label, or a number inside a label's span."""
    assert predict.parse_value(column, text) == value


@pytest.mark.parametrize(
    ("column", "text", "says"),
    [
        (AGE, "3", "1 (18-24), 2 (25-29)"),
        (AGE, "17", "1 (18-24)"),
        (WEIGHT, "29.9", "from 30 to 300 kg"),
        (WEIGHT, "inf", "from 30 to 300 kg"),
        (WEIGHT, "heavy", "from 30 to 300 kg"),
        (CITY, "Bon", "did you mean 'bonn'?"),
    ],
)
def test_a_value_that_does_not_fit_is_answered_with_what_is_allowed(
    column: Column, text: str, says: str
) -> None:
    """The message names the column and what it takes."""
    with pytest.raises(predict.BadValueError) as error:
        predict.parse_value(column, text)
    assert column.name in str(error.value)
    assert says in str(error.value)


def test_one_person_is_asked_as_one_row_in_schema_order(
    schema: Schema, served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not given goes as null; the answer is readable and carries the disclaimer."""
    url, bodies, _ = served
    assert predict.main(["--url", url, "--BMI", "31", "--HighBP", "yes", "--Age", "62"]) == 0
    sent = bodies[0]["dataframe_split"]
    assert sent["columns"] == list(schema.feature_names)
    row = dict(zip(sent["columns"], sent["data"][0], strict=True))
    assert (row["BMI"], row["HighBP"], row["Age"], row["Smoker"]) == (31.0, 1.0, 9.0, None)
    said = capsys.readouterr().out
    assert "Risk 25.0%" in said
    assert "About 25 of 100" in said
    assert "18 of 21 answers are missing" in said
    assert schema.disclaimer in said


def test_the_decision_threshold_of_a_reference_is_shown(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With reference.json the reader learns on which side of the threshold the risk lies."""
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps({"score": {"threshold": 0.15}}))
    assert predict.main(["--url", served[0], "--BMI", "31", "--reference", str(reference)]) == 0
    assert "at or above the model's decision threshold of 15.0%" in capsys.readouterr().out


def test_a_model_of_people_who_do_not_exist_says_so(
    served: Any, schema: Schema, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For one person and for a file; a model of real people says nothing of the kind."""
    url, _, answer = served
    people = tmp_path / "people.csv"
    people.write_text("BMI\n31\n")
    for headers, says in (({}, False), ({"Model-Data": "synthetic"}, True)):
        answer(200, None, headers)
        assert predict.main(["--url", url, "--BMI", "31"]) == 0
        assert (predict.SYNTHETIC in capsys.readouterr().out) == says
        assert predict.main(["--url", url, "--csv", str(people)]) == 0
        assert (predict.SYNTHETIC in capsys.readouterr().err) == says


def test_all_wrong_answers_are_named_at_once_and_nothing_is_sent(
    served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, one message, no traceback, no request."""
    url, bodies, _ = served
    assert predict.main(["--url", url, "--BMI", "500", "--Age", "old"]) == 1
    said = capsys.readouterr().err
    assert "BMI is a number from" in said
    assert "Age is" in said
    assert bodies == []


def test_a_csv_file_keeps_its_lines_and_gains_risk_and_reason(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad line keeps its place with the reason, other columns pass through, exit code 1 says it."""
    people, out = tmp_path / "people.csv", tmp_path / "risks.csv"
    people.write_text("who,BMI,HighBP\nA,31,yes\nB,700,no\nC,,0\n", encoding="utf-8-sig")
    assert predict.main(["--url", served[0], "--csv", str(people), "--out", str(out)]) == 1
    lines = out.read_text().splitlines()
    assert lines[0] == "who,BMI,HighBP,risk,reason"
    assert lines[1] == "A,31,yes,0.250000,"
    assert lines[2].startswith("B,700,no,,BMI is a number from")
    assert lines[3] == "C,,0,0.250000,"
    assert len(served[1]) == 1, "good lines travel together"
    assert "2 people with a risk, 1 without" in capsys.readouterr().err


def file_of(folder: Path, text: str) -> Path:
    (folder / "people.csv").write_text(text)
    return folder / "people.csv"


def test_a_csv_file_larger_than_a_batch_keeps_its_order(schema: Schema, served: Any, tmp_path: Path) -> None:
    """Lines are sent in batches and come back one for one."""
    lines = ["BMI\n", *(f"{20 + number % 50}\n" for number in range(predict.BATCH_ROWS + 3))]
    out = io.StringIO()
    people = file_of(tmp_path, "".join(lines))
    assert predict.predict_csv(schema, people, out, served[0]) == (predict.BATCH_ROWS + 3, 0, False)
    assert [len(body["dataframe_split"]["data"]) for body in served[1]] == [predict.BATCH_ROWS, 3]
    assert [line.split(",")[0] for line in out.getvalue().splitlines()[1:]] == [
        line.strip() for line in lines[1:]
    ]


@pytest.mark.parametrize("header", ["name,place\n", "bmi,Age\n", "BMI,HighBp\n"])
def test_a_csv_file_without_the_right_names_is_refused(schema: Schema, tmp_path: Path, header: str) -> None:
    """No known column, or one that looks like a slip, is an error that lists the columns."""
    with pytest.raises(UserError, match="columns: HighBP"):
        predict.predict_csv(schema, file_of(tmp_path, f"{header}1,2\n"), io.StringIO(), "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("BMI,Age\n27,1,5\n", "3 values in row 1 after the header, where its header has 2 columns"),
        ("BMI,Age\n27\n", "1 values in row 1"),
        ("BMI,Age,Age\n27,5,6\n", "the columns 2, 3 of people.csv share a name"),
        ("BMI,Age,risk\n27,5,0.5\n", "a column risk"),
    ],
)
def test_a_row_that_does_not_fit_its_header_gets_no_risk(
    schema: Schema, served: Any, tmp_path: Path, content: str, says: str
) -> None:
    """The reader is that of `score`: nothing is sent, and the row is named."""
    with pytest.raises(UserError, match=says):
        predict.predict_csv(schema, file_of(tmp_path, content), io.StringIO(), served[0])
    assert served[1] == []


def test_semicolons_and_decimal_commas_are_understood(schema: Schema, served: Any, tmp_path: Path) -> None:
    """As a spreadsheet in many countries saves it; the columns of the file stay as they were."""
    out = io.StringIO()
    people = file_of(tmp_path, "who;BMI;Age;HighBP\nA;27,5;70-74;True\n")
    assert predict.predict_csv(schema, people, out, served[0]) == (1, 0, False)
    sent = served[1][0]["dataframe_split"]
    row = dict(zip(sent["columns"], sent["data"][0], strict=True))
    assert (row["BMI"], row["Age"], row["HighBP"]) == (27.5, 11.0, 1.0)
    assert out.getvalue().splitlines()[1] == 'A,"27,5",70-74,True,0.250000,'


@pytest.mark.parametrize(
    ("option", "text", "column", "value"),
    [
        ("--Age", "85", "Age", 13.0),
        ("--age", "85", "Age", 13.0),
        ("--Income", "30000", "Income", 5.0),
        ("--Income", "9000", "Income", 1.0),
        ("--Income", "80000", "Income", 8.0),
        ("--highbp", "True", "HighBP", 1.0),
        ("--Smoker", "n", "Smoker", 0.0),
    ],
)
def test_answers_as_people_give_them_are_understood(
    served: Any, option: str, text: str, column: str, value: float
) -> None:
    """A number within a level that has one open end, names in small letters, truth values."""
    assert predict.main(["--url", served[0], option, text]) == 0
    sent = served[1][-1]["dataframe_split"]
    assert dict(zip(sent["columns"], sent["data"][0], strict=True))[column] == value


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, {}, "--token-file"),
        (503, {}, "try again"),
        (500, {}, "answered 500"),
        (200, {"nothing": 1}, "no risks"),
        (200, {"predictions": [[0.2, 1.8]]}, "no risks"),
        (200, {"predictions": []}, "no risks"),
    ],
)
def test_an_answer_that_is_no_risk_is_explained(
    served: Any, capsys: pytest.CaptureFixture[str], status: int, body: Any, says: str
) -> None:
    """Whatever the service says, the person reads one sentence with the remedy."""
    url, _, answer = served
    answer(status, body)
    assert predict.main(["--url", url, "--BMI", "31"]) == 1
    assert says in capsys.readouterr().err


def test_nobody_listening_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """A refused connection names the commands that start the service."""
    assert predict.main(["--url", "http://127.0.0.1:9", "--BMI", "31"]) == 1
    assert "make serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no answers given"),
        (["--csv", "x.csv", "--BMI", "3"], "not both"),
        (["--csv", "no-such-file.csv"], "cannot be read"),
        (["--url", "file:///etc/hostname", "--BMI", "31"], "http://"),
        (["--BMI", "31", "--token-file", "no-such-file"], "token file"),
        (["--BMI", "31", "--reference", "no-such-file"], "no reference.json"),
    ],
)
def test_wrong_use_is_explained(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One message, exit code 1, no traceback."""
    assert predict.main(arguments) == 1
    assert says in capsys.readouterr().err


def explained(risk: float, *effects: tuple[str, str, float]) -> dict[str, Any]:
    """One row's answer of a glass box that was asked for reasons."""
    reasons = [{"columns": [name], "levels": [level], "log_odds": value} for name, level, value in effects]
    return {"risk": risk, "reasons": reasons, "baseline_log_odds": -2.0, "other_log_odds": 0.1, "missing": []}


def test_reasons_are_asked_for_and_shown_as_factors_on_the_odds(
    served: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words of the level, beside the answers that were missing; they are called no causes."""
    url, bodies, reply = served
    reply(200, {"predictions": [explained(0.4, ("BMI", "42 and over", 1.0986), ("HighBP", "no", -0.6931))]})
    assert predict.main(["--url", url, "--BMI", "44", "--HighBP", "no", "--reasons", "2"]) == 0
    assert bodies[-1]["params"] == {"reasons": 2}
    shown = capsys.readouterr().out
    assert "BMI (42 and over): odds times 3.00" in shown
    assert "HighBP (no): odds times 0.50" in shown
    assert "not causes" in shown
    assert "19 of 21 answers are missing (HighChol" in shown


def test_without_reasons_nothing_more_is_asked_for(served: Any) -> None:
    url, bodies, _ = served
    assert predict.main(["--url", url, "--BMI", "44"]) == 0
    assert "params" not in bodies[-1]


def test_a_model_that_is_not_additive_has_no_reasons(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    url, _, reply = served
    reply(200, {"predictions": [{"risk": 0.4, "reasons": None}]})
    assert predict.main(["--url", url, "--BMI", "44", "--reasons", "2"]) == 0
    captured = capsys.readouterr()
    assert "Risk 40.0%" in captured.out
    assert "no exact reasons" in captured.err


def test_a_file_gets_the_reasons_in_a_column(served: Any, schema: Schema, tmp_path: Path) -> None:
    url, _, reply = served
    reply(200, {"predictions": [explained(0.25, ("BMI", "27-28", 0.5))]})
    out = io.StringIO()
    predict.predict_csv(schema, file_of(tmp_path, "BMI,Age\n27,2\n700,2\n"), out, url, reasons=1)
    lines = out.getvalue().splitlines()
    assert lines[0] == "BMI,Age,risk,reason,because"
    assert lines[1] == "27,2,0.250000,,BMI (27-28): odds times 1.65"
    assert lines[2].endswith(",")
