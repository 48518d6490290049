#!/usr/bin/env bash
# Makes the environment .venv if it is absent, then checks style and types and runs the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! [ -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scripts/test.sh: Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 2; }
  "$python" -m venv .venv
fi
if ! .venv/bin/python -c 'import aiohttp, fsspec, pytest, xdist, hypothesis, sklearn, anndata, jsonschema, mypy, nmfstream, ruff' 2>/dev/null; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
fi

.venv/bin/ruff check nmfstream tests scripts
.venv/bin/mypy
exec .venv/bin/python -m pytest -q -n "${WORKERS:-auto}" -m "not slow" "$@"
