"""What a user gave that cannot be carried out."""


class UsageError(ValueError):
    """A command that cannot be carried out as given; the message is one line."""
