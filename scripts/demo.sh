#!/usr/bin/env bash
# Topics of Python's own standard library, from nothing: makes the environment .venv, builds a document-term matrix
# from the library's source texts, fits topics, and prints them. Everything it makes lies in .demo/ (and .venv/).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! [ -x .venv/bin/nmfstream ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scripts/demo.sh: Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 2; }
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e .
fi
PATH=$PWD/.venv/bin:$PATH
mkdir -p .demo

run() { echo "\$ $*"; "$@"; echo; }

run python scripts/demo.py build .demo/stdlib.h5
run nmfstream info .demo/stdlib.h5
run nmfstream fit .demo/stdlib.h5/X -o .demo/topics.h5 -k 12 --beta-loss kullback-leibler --max-iter 10 --overwrite
run nmfstream transform .demo/stdlib.h5/X -m .demo/topics.h5 -o .demo/W.npy --overwrite
run nmfstream score .demo/stdlib.h5/X -m .demo/topics.h5
run python scripts/demo.py show .demo/stdlib.h5 .demo/topics.h5 .demo/W.npy
