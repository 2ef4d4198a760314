"""An answer to a request: the container's, or a refusal by the sidecar, which repeats no input."""

import json
from typing import NamedTuple

from monitoring.sidecar.http1 import Fields


class Answer(NamedTuple):
    """Status code, reason phrase, end-to-end fields without Content-Length, body.

    `refused` is the reason of a refusal by the sidecar, one of REASONS, else empty.
    """

    status: int
    phrase: str
    fields: Fields
    body: bytes
    refused: str = ""


class Refusal(NamedTuple):
    """Status and message of a refusal, and the reason under which it is counted."""

    status: int
    phrase: str
    message: str
    counted: str


REFUSALS = {
    "malformed": Refusal(400, "Bad Request", "The request is malformed.", "malformed"),
    "unauthorized": Refusal(401, "Unauthorized", "A valid bearer token is needed.", "unauthorized"),
    "not_found": Refusal(404, "Not Found", "Nothing is served at this path.", "not_found"),
    "method": Refusal(405, "Method Not Allowed", "This path does not take this method.", "method"),
    "late": Refusal(408, "Request Timeout", "The request did not arrive in time.", "late"),
    "too_large": Refusal(
        413, "Content Too Large", "The request is larger than this service takes.", "too_large"
    ),
    "media_type": Refusal(
        415, "Unsupported Media Type", "Content-Type must name a type that this service reads.", "media_type"
    ),
    "guard": Refusal(422, "Unprocessable Content", "Rows break the model's schema.", "guard"),
    "internal": Refusal(
        500, "Internal Server Error", "The sidecar failed; its log names the place.", "internal"
    ),
    "upstream": Refusal(
        502, "Bad Gateway", "The model's container cannot be reached or gave no proper answer.", "upstream"
    ),
    "overload": Refusal(
        503, "Service Unavailable", "Too many requests are waiting; try again soon.", "overload"
    ),
    "stopping": Refusal(503, "Service Unavailable", "The service is stopping; try again.", "stopping"),
    "timeout": Refusal(504, "Gateway Timeout", "The model's container did not answer in time.", "upstream"),
}
REASONS = tuple(dict.fromkeys(refusal.counted for refusal in REFUSALS.values()))
EXTRA_FIELDS: dict[str, Fields] = {
    "unauthorized": (("WWW-Authenticate", "Bearer"),),
    "overload": (("Retry-After", "1"),),
    "stopping": (("Retry-After", "1"),),
}
JSON_FIELDS: Fields = (("Content-Type", "application/json"),)


def refusal(reason: str, message: str | None = None, **details: object) -> Answer:
    """The sidecar's own JSON error for a reason of REFUSALS, in the shape of MLflow's errors."""
    status, phrase, default, counted = REFUSALS[reason]
    document = {"error_code": reason.upper(), "message": message or default, **details}
    fields = (*JSON_FIELDS, *EXTRA_FIELDS.get(reason, ()))
    return Answer(status, phrase, fields, json.dumps(document).encode(), counted)


def document(status: int, phrase: str, content: object) -> Answer:
    """A JSON answer by the sidecar that is not a refusal."""
    return Answer(status, phrase, JSON_FIELDS, json.dumps(content).encode())
