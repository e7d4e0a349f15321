"""Tables of our own on offline learners."""

TITLE = "Offline learners"
