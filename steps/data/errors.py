"""Errors that a person caused and can mend: shown as one message, without a traceback."""


class UserError(Exception):
    """Something the person who started the command can put right; the message names it and the remedy."""
