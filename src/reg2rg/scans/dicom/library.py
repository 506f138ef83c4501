"""pydicom, imported when it is needed, what its readers raise as faults of the file, and numbers in messages."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reg2rg.core.errors import DataFault

_AGAIN = "export or download the file again"


def pydicom() -> Any:
    """The library.

    Raises:
        DataFault: NO_PYDICOM, it is not installed.
    """
    try:
        return importlib.import_module("pydicom")
    except ModuleNotFoundError as error:
        if error.name != "pydicom":
            raise
        fix = "pip install 'reg2rg[dicom]'"
        raise DataFault.of("NO_PYDICOM", found="DICOM", expected="pydicom, to read it", fix=fix) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings on values that break the standard's letter: they quote values of patients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def damage(path: Path, what: str) -> Iterator[None]:
    """Whatever comes of parsing or decoding what is damaged becomes CORRUPT; a lack of memory does not.

    Raises:
        DataFault: CORRUPT.
    """
    try:
        with quiet():
            yield
    except (DataFault, MemoryError):
        raise
    except Exception as error:  # pydicom and its codecs raise whatever comes of a value that they cannot read
        found = f"{what} that cannot be read ({type(error).__name__})"
        raise DataFault.of("CORRUPT", found=found, expected="sound DICOM", fix=_AGAIN, path=path) from error


def counted(number: int, what: str, many: str = "") -> str:
    """``1 slice``, ``2 slices``."""
    return f"{number} {what if number == 1 else many or what + 's'}"
