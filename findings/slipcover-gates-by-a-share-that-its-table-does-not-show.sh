#!/usr/bin/env bash
# Under pytest-xdist a coverage gate and the table beside it are of different runs.
#
# slipcover 1.1.0, pytest 9.1.1, pytest-xdist 3.8.0, Python 3.11. `--fail-under` with `-m pytest -n 2`.
# Guess: the table shows the share that the gate held against its limit, as without workers.
# Seen:  the gate counts what the workers ran (100 %: exit status 0), the table what the process that started them ran (0 %).
#        The first reading of the workers' file takes it away, and the gate is the first. Without `--fail-under` the table
#        is right; so is `--merge FILE --fail-under` on a JSON file that was written without it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install --quiet slipcover==1.1.0 pytest==9.1.1 pytest-xdist==3.8.0
mkdir lib tests
printf 'def double(number):\n    return 2 * number\n' > lib/doubling.py
printf 'from doubling import double\n\n\ndef test_double():\n    assert double(2) == 4\n' > tests/test_doubling.py
export PYTHONPATH=$work/lib

share() { sed -n 's/^(summary) *//p;s/^lib\/doubling.py *\([0-9]\)/\1/p' "$1" | tail -1 | awk '{ print $3 }'; }

run() { venv/bin/python -m slipcover --source lib "$@" -m pytest -q -p no:cacheprovider -n 2 tests > told.txt; }

run
plain=$(share told.txt)
run --fail-under 100 && gate=passed || gate=failed
gated=$(share told.txt)
run --json --out found.json
venv/bin/python -m slipcover --merge found.json --out /dev/null --fail-under 100 > told.txt && merged=passed || merged=failed
echo "table without a gate: $plain %; with a gate of 100: $gate, table: $gated %; merged with it: $merged, table: $(share told.txt) %"
[ "$plain $gate $gated $merged $(share told.txt)" = "100 passed 0 passed 100" ]
echo "unchanged"
