"""What the commands of `trajclust` do; `cli` only parses them."""


class UsageError(ValueError):
    """A command that cannot be carried out as given."""
