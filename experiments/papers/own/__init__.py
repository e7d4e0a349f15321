"""Tables of our own on data as users bring it."""

TITLE = "Your own data"
