"""The files in a real Grafana, wherever `GRAFANA_URL` points (user and password in `GRAFANA_USER`).

It must have been started with this repository's `provisioning/` and `dashboards/` on this machine, so that
notifications reach the listeners here, and a minute ago or more: only then its templates are in use. The
test of mail needs `SMTP_PORT`, a free port of loopback to which it sends (GF_SMTP_HOST=127.0.0.1:<port>).
"""

from __future__ import annotations

import base64
import email
import email.policy
import html
import json
import os
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from monitoring.grafana import lint

FILES = lint.read()
RULES = {rule["uid"]: rule for _, rule in FILES.rules()}


@pytest.fixture(scope="module")
def grafana() -> Any:
    """Asks Grafana's API: `grafana(path)` or `grafana(path, document)`."""
    url = os.environ.get("GRAFANA_URL", "").rstrip("/")
    if not url:
        pytest.skip("GRAFANA_URL is not set: start a Grafana with monitoring/grafana and set it")
    user = base64.b64encode(os.environ.get("GRAFANA_USER", "admin:admin").encode()).decode()

    def ask(path: str, document: Any = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Basic {user}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=60) as answer:
            return json.load(answer)

    return ask


@pytest.fixture
def listener() -> Iterator[tuple[str, list[tuple[str, dict[str, str], Any]]]]:
    """A stand-in for whoever is notified: its address, and (path, headers, JSON) of what arrived."""
    arrived: list[tuple[str, dict[str, str], Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            arrived.append((self.path, headers, json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    # Grafana in a container reaches this machine by another name than loopback.
    host = os.environ.get("GRAFANA_REACHES", "127.0.0.1")
    server = HTTPServer((host, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}", arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def mailbox() -> Iterator[list[Any]]:
    """A stand-in for the mail server that Grafana sends to: the mails that arrived."""
    port = os.environ.get("SMTP_PORT", "")
    if not port:
        pytest.skip("SMTP_PORT is not set: the free port of loopback that this Grafana sends mail to")
    arrived: list[Any] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            for line in self.rfile:
                word = line.strip().upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    mail = b"".join(iter(self.rfile.readline, b".\r\n"))
                    arrived.append(email.message_from_bytes(mail, policy=email.policy.default))
                self.wfile.write(b"250 good\r\n" if word != b"QUIT" else b"221 bye\r\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    with Server(("127.0.0.1", int(port)), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield arrived
        server.shutdown()
        thread.join()


def send(grafana: Any, name: str, environment: dict[str, str]) -> Any:
    """Have Grafana send a test notification through a contact point of the files."""
    (point,) = [point for _, point in FILES.items("contactPoints") if point["name"] == name]

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return lint.interpolate(value, environment)
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return value

    receivers = [
        {
            "uid": receiver["uid"],
            "name": name,
            "type": receiver["type"],
            "disableResolveMessage": False,
            "settings": filled(receiver["settings"]),
        }
        for receiver in point["receivers"]
    ]
    alert = {
        "labels": {
            "alertname": "Feature drift",
            "severity": "warning",
            "action": "retrain",
            "feature": "BMI",
        },
        "annotations": {
            "summary": 'BMI drifts: evidence is 2.31 times its "limit"',
            "description": "What it means.",
            "runbook_url": "/d/runbook?viewPanel=panel-12",
        },
    }
    path = "/api/alertmanager/grafana/config/api/v1/receivers/test"
    return grafana(
        path, {"receivers": [{"name": name, "grafana_managed_receiver_configs": receivers}], "alert": alert}
    )


def written(grafana: Any, alerts: list[dict[str, Any]]) -> str:
    """The text of a message about alerts."""
    (template,) = [item for _, item in FILES.items("templates")]
    path = "/api/alertmanager/grafana/config/api/v1/templates/test"
    answer = grafana(path, {"alerts": alerts, "template": template["template"], "name": template["name"]})
    (text,) = [one["text"] for one in answer["results"] if one["name"] == "alert.text"]
    return str(text)


def test_every_dashboard_is_there(grafana: Any) -> None:
    """With all its panels, in one folder beside the rules."""
    found = {board["uid"]: board for board in grafana("/api/search?type=dash-db")}
    for board in FILES.dashboards.values():
        assert found[board["uid"]]["folderTitle"] == "Model monitoring"
        loaded = grafana(f"/api/dashboards/uid/{board['uid']}")["dashboard"]
        assert [panel["title"] for panel in loaded["panels"]] == [panel["title"] for panel in board["panels"]]
    assert len([f for f in grafana("/api/folders") if f["title"] == "Model monitoring"]) == 1


def test_every_alert_rule_is_there_as_written(grafana: Any) -> None:
    """Expressions and annotations without a lost or added character."""
    found = {rule["uid"]: rule for rule in grafana("/api/v1/provisioning/alert-rules")}
    assert set(found) == set(RULES)
    for uid, rule in RULES.items():
        assert found[uid]["data"][0]["model"]["expr"] == rule["data"][0]["model"]["expr"]
        assert found[uid]["annotations"] == rule["annotations"]
        # The environment is that of the Grafana that was asked.
        labels = {**found[uid]["labels"], "environment": "$ENVIRONMENT"}
        assert labels == rule["labels"]
        assert (found[uid]["noDataState"], found[uid]["execErrState"]) == (
            rule["noDataState"],
            rule["execErrState"],
        )


def test_every_alert_rule_evaluates(grafana: Any) -> None:
    """Health is ok, or not known before the first evaluation; never an error."""
    groups = grafana("/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert {name: state for name, state in health.items() if state == "error"} == {}
    assert len(health) == len(RULES)


def test_channels_routes_and_hours_are_there(grafana: Any) -> None:
    """As the files say."""
    names = {point["name"] for point in grafana("/api/v1/provisioning/contact-points")}
    assert names >= {"nobody", "email", "slack", "webhook", "watchdog", "retrain"}
    tree = grafana("/api/v1/provisioning/policies")
    assert tree["receiver"] == "nobody"
    assert [route["receiver"] for route in tree["routes"]] == [
        "watchdog",
        "retrain",
        "webhook",
        "email",
        "slack",
    ]
    assert [mute["name"] for mute in grafana("/api/v1/provisioning/mute-timings")] == ["nights-and-weekends"]


def test_a_webhook_carries_what_the_template_promises(grafana: Any, listener: Any) -> None:
    """Severity and name in the title; summary, meaning and runbook in the text."""
    url, arrived = listener
    send(grafana, "webhook", {"ALERT_WEBHOOK_URL": url})
    ((_, _, body),) = arrived
    assert body["title"] == "[WARNING] Feature drift"
    assert 'BMI drifts: evidence is 2.31 times its "limit"' in body["message"]
    assert "/d/runbook?viewPanel=panel-12" in body["message"]
    assert "//d/" not in body["message"].replace("://", "")


def test_a_message_of_several_features_has_a_line_for_each_the_largest_first(grafana: Any) -> None:
    """Whatever their number and order; links are once there, to the largest."""
    evidence = {"Age": 2.5, "BMI": 1234.5, "Income": 31.0, "Sex": 191.28, "Stroke": 47.0}
    alerts = [
        {
            "labels": {"alertname": "Feature drift", "severity": "warning", "feature": feature},
            "annotations": {
                "summary": f'{feature}: share of "36 & over" rose',
                "graph_url": f"/d/data?var-one={feature}",
                "__values__": json.dumps({"A": value}),
            },
        }
        for feature, value in evidence.items()
    ]
    text = written(grafana, alerts)
    largest_first = sorted(evidence, key=evidence.__getitem__, reverse=True)
    assert text.splitlines()[:5] == [f'{feature}: share of "36 & over" rose' for feature in largest_first]
    assert text.count("/d/data") == 1
    assert "/d/data?var-one=BMI" in text


def test_a_message_that_it_is_over_says_after_how_long(grafana: Any) -> None:
    """In whole seconds, and no more."""
    times = {"startsAt": "2026-11-27T10:00:00.123456789Z", "endsAt": "2026-11-27T13:50:01.5Z"}
    alert = {"labels": {"alertname": "Feature drift", "feature": "Age"}, "annotations": {"summary": "s"}}
    assert written(grafana, [alert | times]).strip() == "Over: Age, after 3h50m1s"


def test_a_mail_says_what_the_template_promises(grafana: Any, mailbox: list[Any]) -> None:
    """Severity and name in the subject; summary, meaning and runbook in the text."""
    send(grafana, "email", {"ALERT_EMAIL": "oncall@example.org"})
    (mail,) = mailbox
    assert mail["To"] == "oncall@example.org"
    assert mail["Subject"] == "[WARNING] Feature drift"
    text = html.unescape(mail.get_body(("html",)).get_content())
    assert 'BMI drifts: evidence is 2.31 times its "limit"' in text
    assert "What it means." in text
    assert "/d/runbook?viewPanel=panel-12" in text


def test_slack_gets_title_text_and_colour(grafana: Any, listener: Any) -> None:
    """In an attachment, as an incoming webhook takes it."""
    url, arrived = listener
    send(grafana, "slack", {"ALERT_SLACK_URL": f"{url}/services/x"})
    ((path, _, body),) = arrived
    assert path == "/services/x"
    (attachment,) = body["attachments"]
    assert attachment["title"] == "[WARNING] Feature drift"
    assert "BMI drifts" in attachment["text"]
    assert attachment["color"] == "warning"


def test_the_dispatch_is_what_githubs_api_takes(grafana: Any, listener: Any) -> None:
    """A ref, inputs that are strings, the token as bearer, the API's headers; quotes survive."""
    url, arrived = listener
    path = "/repos/o/r/actions/workflows/alert.yml/dispatches"
    send(
        grafana,
        "retrain",
        {"RETRAIN_URL": url + path, "RETRAIN_TOKEN": "github_pat_x", "RETRAIN_REF": "main"},
    )
    ((asked, headers, body),) = arrived
    assert asked == path
    assert headers["authorization"] == "Bearer github_pat_x"
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert set(body) == {"ref", "inputs"}
    assert body["ref"] == "main"
    assert set(body["inputs"]) == {"reason", "source"}
    assert all(isinstance(value, str) for value in body["inputs"].values())
    assert body["inputs"]["reason"].startswith('BMI drifts: evidence is 2.31 times its "limit"')
