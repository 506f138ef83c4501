#!/usr/bin/env bash
# A gzip NRRD whose last bytes are missing is read without a word.
#
# pynrrd 1.1.3 with NumPy 2.3.5. A volume of int16 is written with encoding gzip, then the file is damaged.
# Guess: `nrrd.read` raises, since gzip ends with a CRC-32 and a length, and Python's gzip module raises EOFError.
# Seen:  without the 8 bytes of the trailer the volume comes back: the file is inflated by zlib.decompressobj, which
#        is never asked whether the stream ended. Python's gzip module raises EOFError. A wrong CRC is noticed by both,
#        and with half of the file gone the array has too few numbers. So a copy that broke off at the very end passes
#        unchecked, which is where the check would have been.
# So:    whoever must notice a broken copy checks the gzip stream before or beside pynrrd.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pynrrd==1.1.3 numpy==2.3.5
cd "$work"
./venv/bin/python - <<'PY'
import gzip
from pathlib import Path

import nrrd
import numpy as np

voxels = np.random.default_rng(0).integers(-1000, 1000, (40, 40, 20)).astype(np.int16)
nrrd.write("whole.nrrd", voxels, {"encoding": "gzip"})
whole = Path("whole.nrrd").read_bytes()
header, separator, packed = whole.partition(b"\n\n")


def outcome(read):
    try:
        return "equal" if np.array_equal(read(), voxels) else "differs"
    except Exception as error:
        return type(error).__name__


def inflated(part):
    return np.frombuffer(gzip.decompress(part), np.int16).reshape(voxels.shape, order="F")


flipped = bytearray(packed)
flipped[-6] ^= 1  # inside the CRC-32
found = {}
for name, part in {"trailer gone": packed[:-8], "CRC wrong": bytes(flipped), "half": packed[: len(packed) // 2]}.items():
    Path("damaged.nrrd").write_bytes(header + separator + part)
    found[name] = outcome(lambda: nrrd.read("damaged.nrrd")[0]), outcome(lambda part=part: inflated(part))
    print(f"{name}: nrrd.read {found[name][0]}, gzip module {found[name][1]}")
assert found["trailer gone"] == ("equal", "EOFError"), found
assert found["CRC wrong"] == ("error", "BadGzipFile"), found
assert found["half"][0] not in ("equal", "differs"), found
PY
echo "unchanged"
