"""Settings of the sidecar."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from monitoring.sidecar.settings import Settings, SettingsError, read
from tests.conftest import ROOT


def test_defaults_hold_where_nothing_is_set() -> None:
    """Variables of others are ignored; an empty value means the default."""
    assert read({"PATH": "/bin", "MODEL_EXPORTER_PORT": ""}) == Settings()


def test_values_are_read_as_their_types() -> None:
    """Numbers, lists of keys and of headers."""
    settings = read(
        {
            "MODEL_EXPORTER_UPSTREAM": "http://model:8080/",
            "MODEL_EXPORTER_BATCH_WAIT_MS": "1.5",
            "MODEL_EXPORTER_FEEDBACK_KEYS": "a-first-key-of-many, a-second-key-of-many",
            "MODEL_EXPORTER_BATCH_HEADERS": "X-Tenant, Accept-Language",
            "MODEL_EXPORTER_GUARD": "reject",
        }
    )
    assert settings.upstream == "http://model:8080"
    assert settings.batch_wait_ms == 1.5
    assert settings.feedback_keys == ("a-first-key-of-many", "a-second-key-of-many")
    assert settings.batch_headers == ("x-tenant", "accept-language")
    assert settings.guard == "reject"


def test_every_problem_is_named_and_no_secret_is() -> None:
    """Unknown variables and values out of range, all in one message, without the values."""
    with pytest.raises(SettingsError) as raised:
        read(
            {
                "MODEL_EXPORTER_PROT": "1",
                "MODEL_EXPORTER_PORT": "70000",
                "MODEL_EXPORTER_GUARD": "maybe",
                "MODEL_EXPORTER_BEARER_TOKEN": "tooshort",
            }
        )
    message = str(raised.value)
    for part in ("PROT is not a setting", "PORT must be a whole number from 1 to 65535", "GUARD", "BEARER"):
        assert part in message
    assert "tooshort" not in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UPSTREAM", "https://model"),
        ("UPSTREAM", "model:8080"),
        ("UPSTREAM", "http://user:word@model"),
        ("UPSTREAM", "http://model/path"),
        ("UPSTREAM", "http://model:99999"),
        ("BATCH_WAIT_MS", "nan"),
        ("BATCH_WAIT_MS", "-1"),
        ("BATCH_HEADERS", "Authorization"),
        ("BATCH_HEADERS", "a b"),
        ("FEEDBACK_KEYS", "long-enough-for-a-key,short"),
        ("MODEL_VERSION", "other"),
        ("MODEL_VERSION", "a b"),
    ],
)
def test_values_that_cannot_work_are_refused(name: str, text: str) -> None:
    """Found at the start, not at the first request."""
    with pytest.raises(SettingsError, match=name):
        read({f"MODEL_EXPORTER_{name}": text})


def test_secrets_are_not_shown() -> None:
    """Settings can be logged."""
    keys, token = ("a-first-key-of-many",), "a-token-of-16-letters"
    shown = repr(Settings(feedback_keys=keys, bearer_token=token, feedback_bearer_token=token))
    assert keys[0] not in shown
    assert token not in shown


def test_help_names_every_setting() -> None:
    """With its range and its default."""
    ended = subprocess.run(
        [sys.executable, "-m", "monitoring.sidecar", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for setting in fields(Settings):
        assert f"MODEL_EXPORTER_{setting.name.upper()}\n" in ended.stdout
    assert "a number from 0 to 100 (default: 3)" in ended.stdout


def test_the_two_ports_must_differ() -> None:
    """The traffic port exposes no internals."""
    with pytest.raises(SettingsError, match="differ"):
        read({"MODEL_EXPORTER_PORT": "9101"})


@pytest.mark.parametrize(
    ("variable", "value"), [("MODEL_EXPORTER_NOPE", "1"), ("MODEL_EXPORTER_REFERENCE", "nowhere.json")]
)
def test_the_command_ends_with_2_and_one_line(variable: str, value: str) -> None:
    """A person who mistypes a setting reads what is wrong, not a traceback."""
    ended = subprocess.run(
        [sys.executable, "-m", "monitoring.sidecar"],
        cwd=ROOT,
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1


def test_as_many_files_may_be_open_as_there_may_be_connections() -> None:
    """Whatever the shell allows; where the system allows less, the log says so."""
    command = (
        "import logging, resource, sys\n"
        "from monitoring.sidecar.__main__ import allow_files\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))\n"
        "allow_files(300)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)\n"
        "allow_files(500)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, warning, last = done.stdout.splitlines()
    assert (first, last) == ("300", "400")
    assert "400 open files, not 500" in warning


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """What a file holds is the secret; an empty file means the default, as an empty variable does."""
    filled, empty = tmp_path / "keys", tmp_path / "token"
    filled.write_text("a-first-key-of-many\n")
    empty.write_text("")
    settings = read(
        {
            "MODEL_EXPORTER_FEEDBACK_KEYS_FILE": str(filled),
            "MODEL_EXPORTER_BEARER_TOKEN_FILE": str(empty),
        }
    )
    assert settings.feedback_keys == ("a-first-key-of-many",)
    assert settings.bearer_token == ()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"FEEDBACK_KEYS_FILE": "/does/not/exist"}, "FEEDBACK_KEYS_FILE cannot be read: FileNotFoundError"),
        (
            {"BEARER_TOKEN": "sixteen-characters", "BEARER_TOKEN_FILE": "/dev/null"},
            "BEARER_TOKEN and MODEL_EXPORTER_BEARER_TOKEN_FILE are both set",
        ),
        ({"PORT_FILE": "/dev/null"}, "PORT_FILE is not a setting"),
    ],
)
def test_a_file_that_cannot_be_meant_is_named(variables: dict[str, str], problem: str) -> None:
    """A missing file, a secret given twice, and a file for what is no secret."""
    with pytest.raises(SettingsError, match=problem):
        read({f"MODEL_EXPORTER_{name}": text for name, text in variables.items()})


KUBERNETES = {
    "MODEL_EXPORTER_SERVICE_HOST": "10.0.0.7",
    "MODEL_EXPORTER_SERVICE_PORT": "8000",
    "MODEL_EXPORTER_SERVICE_PORT_HTTP": "8000",
    "MODEL_EXPORTER_PORT": "tcp://10.0.0.7:8000",
    "MODEL_EXPORTER_PORT_8000_TCP": "tcp://10.0.0.7:8000",
    "MODEL_EXPORTER_PORT_8000_TCP_PROTO": "tcp",
    "MODEL_EXPORTER_PORT_8000_TCP_PORT": "8000",
    "MODEL_EXPORTER_PORT_8000_TCP_ADDR": "10.0.0.7",
    "MODEL_EXPORTER_METRICS_PORT": "tcp://10.0.0.8:9101",
    "MODEL_EXPORTER_METRICS_SERVICE_HOST": "10.0.0.8",
}


def test_variables_that_kubernetes_sets_for_a_service_of_this_name_are_ignored() -> None:
    """A pod gets them for every service of its namespace; a misspelt setting of ours is still refused."""
    assert read(KUBERNETES) == Settings()
    with pytest.raises(SettingsError, match="MODEL_EXPORTER_PROT is not a setting"):
        read({**KUBERNETES, "MODEL_EXPORTER_PROT": "8000"})
    assert read({**KUBERNETES, "MODEL_EXPORTER_PORT": "8080"}).port == 8080


def test_a_bearer_token_may_have_a_successor() -> None:
    """Two at a time, so that callers can change theirs one after the other."""
    both = "an-old-token-0123456,a-new-token-0123456"
    assert read({"MODEL_EXPORTER_BEARER_TOKEN": both}).bearer_token == tuple(both.split(","))
    with pytest.raises(SettingsError, match="MODEL_EXPORTER_BEARER_TOKEN"):
        read({"MODEL_EXPORTER_BEARER_TOKEN": both + ",a-third-token-0123456"})
