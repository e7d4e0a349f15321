"""A folder for each paper, a module for each of its tables and figures; no paper imports another."""
