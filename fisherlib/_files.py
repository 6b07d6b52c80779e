"""Writing files whole, and words for errors and manifests. Private helpers that every wing may use."""


def first_line(error: BaseException) -> str:
    """The first line of a message, for errors that must fit on one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def plain(value):
    """For json: numbers of numpy and torch as numbers, anything else (a path, say) as text."""
    return value.item() if hasattr(value, "item") else str(value)
