#!/usr/bin/env bash
# With pylibjpeg-openjpeg installed pydicom still decodes no HTJ2K: without the empty-looking pylibjpeg it is passed over.
#
# pydicom 3.0.2, pylibjpeg-openjpeg 2.6.0, numpy 2.3.5.
# Guess: the codec's own package is enough, as pyjpegls' is for JPEG-LS; or pydicom says what is missing.
# Seen:  get_decoder(HTJ2KLossless).is_available is False until `pip install pylibjpeg`, which brings no codec but the table
#        of entry points that pydicom asks. pylibjpeg-openjpeg does not depend on it. JPEG 2000 hides it: Pillow takes over.
# So:    an extra that names the codec has to name pylibjpeg too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pydicom==3.0.2 pylibjpeg-openjpeg==2.6.0 numpy==2.3.5
cd "$work"
ask='from pydicom.pixels import get_decoder; from pydicom.uid import HTJ2KLossless; print(get_decoder(HTJ2KLossless).is_available)'
alone=$(./venv/bin/python -c "$ask")
./venv/bin/python -m pip install --quiet pylibjpeg==2.1.0
both=$(./venv/bin/python -c "$ask")
echo "alone: $alone, with pylibjpeg: $both"
test "$alone $both" = "False True"
echo "unchanged"
