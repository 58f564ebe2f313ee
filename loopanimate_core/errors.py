"""The one exception for a user's mistake."""


class LoopAnimateError(ValueError):
    """A mistake the user can mend; the message is one plain sentence with the value and its range."""
