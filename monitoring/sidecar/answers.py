"""An answer to a request: the container's, or one of the sidecar's own refusals, which echo no input."""

import json
from typing import NamedTuple

Headers = tuple[tuple[str, str], ...]


class Answer(NamedTuple):
    """Status code, reason phrase, end-to-end headers without Content-Length, body; what the sidecar adds."""

    status: int
    phrase: str
    headers: Headers
    body: bytes
    added: Headers = ()


REFUSALS = {
    "malformed": (400, "Bad Request", "The request is not well-formed HTTP."),
    "unauthorized": (401, "Unauthorized", "A valid bearer token is needed."),
    "not_found": (404, "Not Found", "Nothing is served at this path."),
    "method": (405, "Method Not Allowed", "This path does not take this method."),
    "too_large": (413, "Content Too Large", "The request is larger than this service takes."),
    "guard": (422, "Unprocessable Content", "Rows break the model's schema."),
    "internal": (500, "Internal Server Error", "The sidecar failed; its log names the place."),
    "upstream": (502, "Bad Gateway", "The model's container cannot be reached or gave no proper answer."),
    "overload": (503, "Service Unavailable", "Too many requests are waiting; try again soon."),
    "stopping": (503, "Service Unavailable", "The service is stopping; try again."),
    "timeout": (504, "Gateway Timeout", "The model's container did not answer in time."),
}
EXTRA_HEADERS: dict[str, Headers] = {
    "unauthorized": (("WWW-Authenticate", "Bearer"),),
    "overload": (("Retry-After", "1"),),
    "stopping": (("Retry-After", "1"),),
}


def refusal(reason: str, message: str | None = None, **details: object) -> Answer:
    """The sidecar's own JSON error for a reason of REFUSALS, in the shape of MLflow's errors."""
    status, phrase, default = REFUSALS[reason]
    body = {"error_code": reason.upper(), "message": message or default, **details}
    headers = (("Content-Type", "application/json"), *EXTRA_HEADERS.get(reason, ()))
    return Answer(status, phrase, headers, json.dumps(body).encode())
