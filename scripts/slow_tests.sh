#!/usr/bin/env bash
# The tests that take minutes (SIGKILLs and resumes; K chosen on the GridWorlds; GRUs): not part of the gate.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m pytest -m slow "$@"
