#!/usr/bin/env bash
# All checks: style, types, tests. The same command runs in CI. Arguments go to pytest.
set -euo pipefail
NMT_EXTRAS=sample,plots,formats,serve,dev
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

ruff check .
ruff format --check .
mypy
python -m pytest tests/test_smoke.py
# Many tests start whole programs: one worker per core, each file on one worker.
python -m pytest --numprocesses auto --dist loadfile "$@"
