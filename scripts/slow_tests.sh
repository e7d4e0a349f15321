#!/usr/bin/env bash
# The tests that take minutes (SIGKILLs and resumes; K chosen; GRUs; every command of README and docs): not of the gate.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m pytest -m slow "$@"
