"""Build METEOR's synonym table from WordNet 3.0's files.

    python tools/build_synonyms.py /usr/share/wordnet           writes src/reg2rg/evaluation/metrics/wordnet_synonyms.xz
    python tools/build_synonyms.py FOLDER --check               exit status 1 if the table there says anything else

On Debian and Ubuntu the files come with ``apt-get install wordnet-base``, or without installing anything:
``apt-get download wordnet-base && dpkg -x wordnet-base_*.deb .``, folder ``usr/share/wordnet``.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import sys
from pathlib import Path

from reg2rg.core.errors import Reg2RGError
from reg2rg.evaluation.metrics.synonyms import TABLE, SynonymReader


def main() -> int:
    """Build, and write or compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds data.noun, noun.exc and so on")
    parser.add_argument("--output", type=Path, default=TABLE, help="the table (default: the package's)")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the table")
    options = parser.parse_args()
    try:
        data = SynonymReader.from_wordnet(options.folder).to_table()
    except Reg2RGError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    text = lzma.decompress(data)
    if options.check:
        # Compared uncompressed: another release of liblzma may pack the same text into other bytes.
        same = options.output.is_file() and lzma.decompress(options.output.read_bytes()) == text
        sys.stdout.write(f"{options.output} {'holds what' if same else 'differs from what'} {options.folder} gives\n")
        return 0 if same else 1
    options.output.write_bytes(data)
    sys.stdout.write(
        f"{options.output}: {len(data):,} bytes; {len(text):,} unpacked, sha256 {hashlib.sha256(text).hexdigest()}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
