"""The viewer that pages carry, as its authors published it: NiiVue's bundle, gzipped (`tools/vendor_niivue.py`)."""

from __future__ import annotations

import functools
import gzip
import hashlib
import zlib
from importlib import resources

from reg2rg.core.errors import ConfigError

VERSION = "0.69.0"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of `dist/niivue.umd.js` in the npm package @niivue/niivue of that version."""
_FOLDER = resources.files("reg2rg.show") / "vendor"


@functools.cache
def read_viewer() -> bytes:
    """The bundle, gzipped.

    Raises:
        ConfigError: it is not the one that its authors published.
    """
    packed = (_FOLDER / "niivue.umd.js.gz").read_bytes()
    try:
        found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        found = f"no gzip file: {error}"
    if found != SHA256:
        raise ConfigError(
            f"{_FOLDER / 'niivue.umd.js.gz'}: sha256 {found} (expected {SHA256}, NiiVue {VERSION}). "
            "Fix: install reg2rg again"
        )
    return packed


def read_licences() -> str:
    """Licence of the viewer, and notices of what it holds."""
    return "\n".join((_FOLDER / f"{name}.niivue.txt").read_text(encoding="utf-8") for name in ("LICENSE", "NOTICES"))
