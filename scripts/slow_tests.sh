#!/usr/bin/env bash
# The tests that take minutes (20 SIGKILLs and resumes): not part of the gate.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m pytest -m slow "$@"
