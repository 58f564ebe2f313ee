"""The exception for mistakes of the user."""


class LoopAnimateError(ValueError):
    """A mistake the user can correct; the message is one sentence with the value and the legal range."""
