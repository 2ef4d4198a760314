"""Downloads: the content behind a URL as a file of the cache, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from steps.data import atomic
from steps.data.files import LocalFile, SourceError, check_sha256, local_file

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server: seconds to connect and seconds without a byte, how many tries, and the
    seconds of the first pause between two (each next one is twice as long).
    """

    connect: float = 10.0
    stall: float = 30.0
    tries: int = 4
    pause: float = 1.0


def download(url: str, cache: Path, sha256: str | None = None, patience: Patience | None = None) -> LocalFile:
    """Download a URL into the cache, as a file named by its sha256; whole or not at all.

    A cached copy with the sha256 that the schema states is used without a request; any other copy is used if
    the server answers that it is current. Raises SourceError.
    """
    patience = patience or Patience()
    shown_url = _without_secrets(url)
    if _split(url).scheme not in ("http", "https"):
        raise SourceError(
            f"{shown_url}: only http and https are fetched. Fetch it yourself and give -P data= the file."
        )
    folder = cache / "downloads"
    name = Path(_split(url).path).name or _split(url).hostname or "download"
    record_path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
    record = _record(record_path)
    cached = _cached_file(folder, sha256 or record.get("sha256"), name)
    if cached is not None and sha256 is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("part-*"):
            if time.time() - leftover.stat().st_mtime > 86_400:  # a download that was killed
                leftover.unlink(missing_ok=True)
        fresh = _fetch(url, shown_url, name, folder, record if cached is not None else {}, sha256, patience)
        if fresh is None:
            if cached is None:
                raise SourceError(f"{shown_url} answered 304 (not modified) to a request without a condition")
            return cached
        file, validators = fresh
        content = {"url": shown_url, "name": name, "sha256": file.sha256, "bytes": file.bytes, **validators}
        atomic.write_text(record_path, json.dumps(content, indent=1))
    except OSError as error:
        raise SourceError(f"{shown_url} cannot be kept in {folder}: {error.strerror or error}") from None
    return file


def refuse_credentials(url: str) -> None:
    """Raise SourceError for a URL with a user in it: MLflow keeps parameters for everybody to read."""
    if "@" in _split(url).netloc:
        raise SourceError(
            f"the URL of {_without_secrets(url)} was given with a user or password, and the parameters of "
            "this run have recorded it: delete the run and change the password. Put user and password into "
            "~/.netrc, or give the whole URL as DATA_URI to `make data-check` or `make retrain`, which hand "
            "over the downloaded file alone"
        )


def _record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _cached_file(folder: Path, sha256: str | None, name: str) -> LocalFile | None:
    """The cached file with this sha256; None where it is absent or damaged."""
    if sha256 is None or not (folder / sha256).is_file():
        return None
    try:
        file = local_file(folder / sha256, name)
    except SourceError:
        return None
    return file if file.sha256 == sha256 else None


def _fetch(
    url: str,
    shown_url: str,
    name: str,
    folder: Path,
    record: dict[str, Any],
    sha256: str | None,
    patience: Patience,
) -> tuple[LocalFile, dict[str, str]] | None:
    """The file and the server's validators for it; None if the recorded file is current (304)."""
    import requests
    from urllib3.exceptions import HTTPError

    headers = {"Accept-Encoding": "identity", "Connection": "close"}
    headers |= {"If-None-Match": record["etag"]} if "etag" in record else {}
    headers |= {"If-Modified-Since": record["last_modified"]} if "last_modified" in record else {}
    with _session(patience) as session:
        for tries_left in reversed(range(patience.tries)):
            try:
                with session.get(
                    url, headers=headers, stream=True, timeout=(patience.connect, patience.stall)
                ) as response:
                    if response.status_code == 304:
                        return None
                    if response.status_code != 200:
                        raise SourceError(
                            f"{shown_url} answered {response.status_code} {response.reason or ''}".rstrip()
                        )
                    return _saved(response, shown_url, name, folder, sha256), _validators(response)
            except requests.RequestException as error:
                raise SourceError(f"{shown_url} cannot be reached: {_cause(error)}") from None
            except HTTPError as error:
                if tries_left == 0:
                    raise SourceError(
                        f"{shown_url} broke off {patience.tries} times: {_cause(error)}. Nothing of it was "
                        "kept."
                    ) from None
                time.sleep(patience.pause * 2 ** (patience.tries - 1 - tries_left))
    return None


def _session(patience: Patience) -> requests.Session:
    """A session that retries failed connections and answers such as 503, but not interrupted bodies."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=patience.tries - 1,
        backoff_factor=patience.pause,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    return session


def _saved(
    response: requests.Response, shown_url: str, name: str, folder: Path, sha256: str | None
) -> LocalFile:
    """Save the body as a file named by its sha256: write a temporary file and rename it when complete."""
    from tqdm import tqdm
    from urllib3.exceptions import ProtocolError

    announced = _announced_bytes(response)
    digest, size = hashlib.sha256(), 0
    descriptor, part = tempfile.mkstemp(prefix="part-", dir=folder)
    try:
        with (
            os.fdopen(descriptor, "wb") as stream,
            tqdm(
                total=announced, unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=None
            ) as bar,
        ):
            for block in response.raw.stream(1 << 16, decode_content=False):
                stream.write(block)
                digest.update(block)
                size += len(block)
                bar.update(len(block))
            stream.flush()
            os.fsync(stream.fileno())
        if announced is not None and size != announced:
            raise ProtocolError(f"the server announced {announced:,} bytes and sent {size:,}")
        if size == 0:
            raise SourceError(f"{shown_url} is empty (0 bytes)")
        check_sha256(digest.hexdigest(), sha256, shown_url)
        Path(part).replace(folder / digest.hexdigest())
    finally:
        Path(part).unlink(missing_ok=True)
    return LocalFile(folder / digest.hexdigest(), name, digest.hexdigest(), size)


def _announced_bytes(response: requests.Response) -> int | None:
    """The body's stated length; the reader is set to continue to the real end of the body.

    http.client stops at the stated length, so a longer body would be cut off silently. Where the connection
    ends with the body, reading to the end is safe, and the caller compares the lengths.
    """
    stated = response.headers.get("Content-Length", "")
    if not stated.isdigit() or response.raw.chunked:
        return None
    wire = getattr(response.raw, "_fp", None)
    if getattr(wire, "will_close", False) and getattr(wire, "length", None) is not None:
        wire.length = None  # type: ignore[union-attr]
        response.raw.enforce_content_length = False
    return int(stated)


def _validators(response: requests.Response) -> dict[str, str]:
    stated = {"etag": response.headers.get("ETag"), "last_modified": response.headers.get("Last-Modified")}
    return {name: value for name, value in stated.items() if value}


def _without_secrets(url: str) -> str:
    """A URL for people to read: without user, password, query and fragment."""
    parts = _split(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise SourceError(
            "what is given as data looks like a URL but is not valid: check its host (brackets are for IPv6)"
        ) from None


def _cause(error: BaseException) -> str:
    """The cause behind a chain of wrapped network errors, in a few words."""
    kind = type(error).__name__
    text = str(error)
    for word, explanation in (
        ("NameResolution", "the host name is unknown"),
        ("Connection refused", "the connection was refused"),
        ("ConnectTimeout", "no connection in time"),
        ("Read timed out", "no byte came in time"),
        ("announced", text),
        ("IncompleteRead", "the connection ended before the announced length"),
        ("CERTIFICATE", "its certificate is not trusted"),
        ("too many", "it answers errors again and again"),
    ):
        if word in text or word in kind:
            return explanation
    return kind
