"""Errors that a person can correct: shown as one message, without a traceback."""


class UserError(Exception):
    """An error that the person who started the command can correct; the message says what and how."""
