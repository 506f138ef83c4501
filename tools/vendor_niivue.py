"""Make the packaged viewer again from npm's packages, and hold what is committed against them.

    python tools/vendor_niivue.py            write src/reg2rg/show/vendor/
    python tools/vendor_niivue.py --check    exit status 1 if something else is committed

Needs Node's `npm` and the network. The viewer is `dist/niivue.umd.js` of the pinned package, byte for byte; gzip alone
is ours. The notices are the licence texts of what its authors bundled, as their packages carry them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "src/reg2rg/show/vendor"
VERSION = "0.69.0"
BUNDLED = (
    "@lukeed/csprng@1.1.0",
    "@lukeed/uuid@2.0.1",
    "@ungap/structured-clone@1.4.0",
    "@zarrita/storage@0.1.4",
    "array-equal@1.0.2",
    "fflate@0.8.3",
    "gl-matrix@3.4.4",
    "nifti-reader-js@0.8.0",
    "numcodecs@0.3.2",
    "reference-spec-reader@0.2.0",
    "unzipit@1.4.3",
    "uzip-module@1.0.3",
    "zarrita@0.5.4",
)
INSIDE = """\
numcodecs holds c-blosc (Copyright (C) 2009 Francesc Alted; 2019 The Blosc Development Team), LZ4 (Copyright (c) Yann
Collet), Zstandard (Copyright (c) Meta Platforms, Inc. and affiliates) and zlib (Copyright (C) Jean-loup Gailly and Mark
Adler), compiled to WebAssembly. They are under the BSD licences and the zlib licence; reg2rg's pages never run them.
The viewer's letters are drawn from Roboto (Copyright Google LLC), Apache License 2.0.

Licence of LZ4 (BSD 2-Clause), of c-blosc and Zstandard (BSD 3-Clause: the same, and that neither the name of the
copyright holder nor the names of its contributors may be used to endorse or promote products derived from this software
without specific prior written permission): redistribution and use in source and binary forms, with or without
modification, are permitted provided that redistributions of source code retain the above copyright notice, this list of
conditions and the disclaimer in LICENSE.niivue.txt, and that redistributions in binary form reproduce them in the
documentation and/or other materials provided with the distribution. They are provided "as is", with that disclaimer.

Licence of zlib: this software is provided 'as-is', without any express or implied warranty. In no event will the
authors be held liable for any damages arising from the use of this software. Permission is granted to anyone to use
this software for any purpose, including commercial applications, and to alter it and redistribute it freely, subject to
the following restrictions: 1. The origin of this software must not be misrepresented; you must not claim that you wrote
the original software. 2. Altered source versions must be plainly marked as such, and must not be misrepresented as
being the original software. 3. This notice may not be removed or altered from any source distribution.
"""


def make() -> dict[str, bytes]:
    """Name -> bytes of the files that are made."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text("{}")
        words = [
            "npm",
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--save-exact",
            f"@niivue/niivue@{VERSION}",
            *BUNDLED,
        ]
        subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        modules = folder / "node_modules"
        script = (modules / "@niivue/niivue/dist/niivue.umd.js").read_bytes()
        parts = [f"NiiVue {VERSION} is under LICENSE.niivue.txt. Its bundle holds the following.\n", INSIDE]
        for package in BUNDLED:
            home = modules / package.rpartition("@")[0]
            (licence,) = (path for path in home.iterdir() if path.stem.lower() == "license")
            parts.append(f"{package}\n\n{licence.read_text(encoding='utf-8').strip()}\n")
    # Without a date and a name, so that the bytes are the same whenever they are made.
    packed = gzip.compress(script, 9, mtime=0)
    print(f"sha256 of niivue.umd.js: {hashlib.sha256(script).hexdigest()}")
    return {"niivue.umd.js.gz": packed, "NOTICES.niivue.txt": f"\n{'-' * 72}\n\n".join(parts).encode()}


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description="Vendor the viewer of pages.")
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    options = parser.parse_args()
    status = 0
    for name, content in make().items():
        path = VENDOR / name
        if not options.check:
            path.write_bytes(content)
        elif _plain(path.read_bytes()) != _plain(content):
            print(f"{path}: other content than npm's packages make", file=sys.stderr)
            status = 1
    return status


def _plain(content: bytes) -> bytes:
    """The content whatever deflated it: releases of zlib differ."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


if __name__ == "__main__":
    sys.exit(main())
