"""Errors that tell a user what to change; anything else is a bug and keeps its traceback."""


class DataError(RuntimeError):
    """The data cannot be had, or is not what it should be; the message says what to do."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be trusted, or a folder that belongs to another run; the message says which and why."""
