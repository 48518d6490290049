#!/usr/bin/env bash
# The long versions of the tests: 100 000 losses of power, 100 000 interleavings of runs, 1000 kills, all that is slow.
#   scripts/soak.sh [power|runs|kills|slow ...]      default: all of them
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
export NMFSTREAM_SCHEDULES=${NMFSTREAM_SCHEDULES:-100000} NMFSTREAM_KILLS=${NMFSTREAM_KILLS:-1000}

power() { "$python" -m pytest -q --timeout=0 tests/storage/test_power_loss.py; }
runs() { "$python" -m pytest -q --timeout=0 tests/storage/test_two_runs.py; }
kills() { "$python" -m pytest -q --timeout=0 tests/faults/test_kill.py; }
slow() { "$python" -m pytest -q --timeout=0 -m slow tests; }

for part in "${@:-power runs kills slow}"; do
  for name in $part; do
    echo "== $name"
    time "$name"
  done
done
