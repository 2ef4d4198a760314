"""Settings, read once from `MODEL_EXPORTER_*` variables: frozen and range-checked; unknown variables fail."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFIX = "MODEL_EXPORTER_"
# Two copies of a body and two of its answer, besides the quarter that large bodies leave to small bodies.
BUFFER_FACTOR = 6
HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
VERSION = re.compile(r"[A-Za-z0-9._-]{1,40}")
SERVICE_VARIABLE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
NEVER_IN_A_BATCH = {"authorization", "cookie", "content-type", "content-length", "host", "transfer-encoding"}


class SettingsError(ValueError):
    """One or more variables are unknown or out of range; the message lists all of them, secrets left out."""


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    read.__doc__ = f"a whole number from {low} to {high}"
    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not low <= number <= high:
            raise ValueError
        return number

    read.__doc__ = f"a number from {low:g} to {high:g}"
    return read


def _choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    read.__doc__ = "one of " + ", ".join(choices)
    return read


def _text(text: str) -> str:
    """some text"""
    if not text.strip():
        raise ValueError
    return text.strip()


def _version(text: str) -> str:
    """1 to 40 letters, digits, dots, dashes or underscores, and not the word other"""
    if not VERSION.fullmatch(text) or text == "other":
        raise ValueError
    return text


def _url(text: str) -> str:
    """http://host:port, without path, query or user"""
    parts = urlsplit(text.rstrip("/"))
    if parts.scheme != "http" or not parts.hostname or parts.path or parts.query or parts.username:
        raise ValueError
    if parts.port == 0:
        raise ValueError
    return text.rstrip("/")


def _secret(text: str) -> str:
    """at least 16 printable ASCII characters without spaces"""
    if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _tokens(text: str) -> tuple[str, ...]:
    """a token of at least 16 printable ASCII characters, or two, with a comma between them, in a rotation"""
    tokens = tuple(_secret(token.strip()) for token in text.split(","))
    if len(tokens) > 2:
        raise ValueError
    return tokens


def _secrets(text: str) -> tuple[str, ...]:
    """keys of at least 16 printable ASCII characters each, separated by commas; the first signs"""
    return tuple(_secret(key.strip()) for key in text.split(","))


def _headers(text: str) -> tuple[str, ...]:
    """header names separated by commas, none of them a credential or part of the framing"""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if any(not HEADER_NAME.fullmatch(name) or name in NEVER_IN_A_BATCH for name in names):
        raise ValueError
    return names


def _setting(default: Any, read: Callable[[str], Any], meaning: str, *, secret: bool = False) -> Any:
    return field(
        default=default, repr=not secret, metadata={"read": read, "meaning": meaning, "secret": secret}
    )


@dataclass(frozen=True)
class Settings:
    """Every setting with its default, range and meaning; a field `x` is the variable `MODEL_EXPORTER_X`."""

    upstream: str = _setting("http://127.0.0.1:8080", _url, "the model's container")
    host: str = _setting("127.0.0.1", _text, "address of the traffic port; * is every one of IPv4 and IPv6")
    port: int = _setting(8000, _whole(1, 65535), "traffic port")
    metrics_host: str = _setting("127.0.0.1", _text, "address of the metrics port, likewise")
    metrics_port: int = _setting(9101, _whole(1, 65535), "port of /metrics, /live and /ready")
    reference: str | None = _setting(None, _text, "path of the model's reference.json")
    page: str | None = _setting(None, _text, "path of one person's page, risk.html, to show at /")
    model_version: str | None = _setting(None, _version, "registered version; default: the reference's")
    bearer_token: tuple[str, ...] = _setting((), _tokens, "asked of callers, never forwarded", secret=True)
    feedback_bearer_token: tuple[str, ...] = _setting((), _tokens, "asked for with labels", secret=True)
    feedback_keys: tuple[str, ...] = _setting((), _secrets, "keys of the feedback tokens", secret=True)
    feedback_days: float = _setting(400, _number(0.001, 4000), "how long a feedback token is accepted")
    feedback_token_rows: int = _setting(256, _whole(1, 2000), "most rows in an answer that gets a token")
    feedback_labels: int = _setting(1000, _whole(1, 100_000), "most labels in one feedback request")
    feedback_versions: int = _setting(8, _whole(0, 100), "older model versions with series of their own")
    feedback_memory: int = _setting(500_000, _whole(1, 10_000_000), "labels remembered to refuse repeats")
    lot_rows: int = _setting(
        10, _whole(1, 1000), "rows, or labels, that reach the metrics together; 1 = each at once"
    )
    guard: str = _setting("observe", _choice("observe", "reject"), "what happens to rows against the schema")
    batch_requests: int = _setting(128, _whole(1, 1024), "most requests in one call; 1 = no batching")
    batch_rows: int = _setting(1024, _whole(1, 100_000), "most rows in one call with several requests")
    batch_wait_ms: float = _setting(3, _number(0, 100), "longest wait for clients that come back; 0 = never")
    batch_calls: int = _setting(1, _whole(1, 64), "calls at a time; the container's workers")
    batch_headers: tuple[str, ...] = _setting((), _headers, "headers that keep requests apart and travel")
    requests: int = _setting(512, _whole(1, 100_000), "most requests read and not yet answered")
    connections: int = _setting(1000, _whole(2, 100_000), "most client connections")
    threads: int = _setting(16, _whole(1, 256), "calls at a time for requests that travel alone")
    body_bytes: int = _setting(10_485_760, _whole(1, 2**31), "largest request body, and largest answer")
    buffer_bytes: int = _setting(
        67_108_864, _whole(1, 2**31), "most bytes of bodies, answers and rows in memory; beyond it 503"
    )
    connect_seconds: float = _setting(2, _number(0.01, 60), "longest wait for a connection")
    timeout_seconds: float = _setting(
        60, _number(0.05, 3600), "longest wait in the queue, and for the container"
    )
    grace_seconds: float = _setting(25, _number(0, 3600), "time to finish requests after a stop signal")
    observer_items: int = _setting(10_000, _whole(1, 1_000_000), "answers waiting to be counted")
    log_level: str = _setting("INFO", _choice("DEBUG", "INFO", "WARNING", "ERROR"), "least level logged")


def _is_service_link(variable: str, text: str) -> bool:
    """Whether Kubernetes has set a variable, for a service named like `model-exporter`."""
    return SERVICE_VARIABLE.search(variable) is not None or (
        variable.endswith("PORT") and SERVICE_ADDRESS.match(text) is not None
    )


def describe() -> str:
    """A line for each variable: its meaning, its range and its default."""
    lines = []
    for setting in fields(Settings):
        default = "none" if setting.default in (None, ()) else setting.default
        meaning, allowed = setting.metadata["meaning"], setting.metadata["read"].__doc__
        variable = PREFIX + setting.name.upper()
        lines.append(f"{variable}\n    {meaning}: {allowed} (default: {default})")
        if setting.metadata["secret"]:
            lines.append(
                f"{variable}_FILE\n    a file that holds it, which no inspection of the container shows"
            )
    return "\n".join(lines)


def _with_files_read(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with the content of each secret's file in the place of `X_FILE`.

    Raises SettingsError if a file cannot be read, or if the secret is given both ways.
    """
    variables = {
        name: text
        for name, text in environment.items()
        if name.startswith(PREFIX) and not _is_service_link(name, text)
    }
    for variable in [
        PREFIX + setting.name.upper() for setting in fields(Settings) if setting.metadata["secret"]
    ]:
        path = variables.pop(f"{variable}_FILE", "")
        if not path:
            continue
        if variables.get(variable):
            raise SettingsError(f"{variable} and {variable}_FILE are both set: keep one")
        try:
            variables[variable] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{variable}_FILE cannot be read: {type(error).__name__}") from None
    return variables


def read(environment: Mapping[str, str]) -> Settings:
    """Read settings from environment variables; variables other than `MODEL_EXPORTER_*` are ignored, and so
    are variables that Kubernetes sets for a service whose name gives them this prefix.

    Raises SettingsError listing every unknown variable and every value out of its range. An empty value
    means the default. A secret may be given as a file instead, by `MODEL_EXPORTER_<NAME>_FILE`.
    """
    known = {PREFIX + setting.name.upper(): setting for setting in fields(Settings)}
    problems: list[str] = []
    values: dict[str, Any] = {}
    for variable, text in sorted(_with_files_read(environment).items()):
        if variable not in known:
            problems.append(f"{variable} is not a setting")
        elif text:
            setting = known[variable]
            try:
                values[setting.name] = setting.metadata["read"](text)
            except ValueError:
                problems.append(f"{variable} must be {setting.metadata['read'].__doc__}")
    if problems:
        raise SettingsError("; ".join(problems))
    settings = Settings(**values)
    if settings.port == settings.metrics_port and settings.host == settings.metrics_host:
        raise SettingsError(f"{PREFIX}PORT and {PREFIX}METRICS_PORT must differ")
    if settings.buffer_bytes < BUFFER_FACTOR * settings.body_bytes:
        raise SettingsError(f"{PREFIX}BUFFER_BYTES must be at least {BUFFER_FACTOR} times {PREFIX}BODY_BYTES")
    return settings
