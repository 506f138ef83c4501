"""Folders of slice images: one grey picture a slice, in the order of the numbers in their names.

What such pictures hold are grey values, which were made with a window that is not known any more, and not HU.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import MAX_DIM, READERS, Reader, ReadOptions, StoredImage
from reg2rg.scans.stacked import from_slices

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_GREY = {"L": np.uint8, "I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32, "1": np.uint8}
_NUMBER = re.compile(r"\d+")
_AGAIN = "export the slices again"


@READERS.register
class Pictures(Reader):
    """A folder of pictures, one a slice (PNG, JPEG, BMP, TIFF), in the order of their numbers."""

    suffixes: ClassVar[tuple[str, ...]] = ()

    def matches(self, path: Path) -> bool:
        """Whether it is a folder with a picture in it, and nothing but pictures."""
        try:
            names = [entry for entry in path.iterdir() if not entry.name.startswith(".")] if path.is_dir() else []
        except (OSError, ValueError):
            return False
        return bool(names) and all(entry.suffix.lower() in SUFFIXES and entry.is_file() for entry in names)

    def read(self, path: Path) -> StoredImage:
        """Read the slices, from head to feet.

        Raises:
            DataFault: SLICE_GAP, SLICE_SIZE, COLOUR, CORRUPT, HEADER.
        """
        return self.read_scan(path, ReadOptions())

    def read_scan(self, path: Path, options: ReadOptions) -> StoredImage:
        """Read the slices in the order that the options say."""
        files = self.files(path)
        slices = [_grey(file) for file in files]
        for file, array in zip(files, slices, strict=True):
            if array.shape != slices[0].shape:
                raise DataFault.of(
                    "SLICE_SIZE",
                    found=f"{file.name} is {_size(array)}, {files[0].name} {_size(slices[0])}",
                    expected="slices of one size",
                    fix=f"{_AGAIN}, one series a folder",
                    path=path,
                )
        if max(len(slices), *slices[0].shape) > MAX_DIM:
            raise DataFault.of("HEADER", found=f"{len(slices)} slices of {_size(slices[0])}",
                               expected=f"at most {MAX_DIM} voxels an axis", fix=_AGAIN, path=path)  # fmt: skip
        return from_slices(path, np.stack(slices), options)

    def files(self, path: Path) -> tuple[Path, ...]:
        """The pictures, by their numbers.

        Raises:
            DataFault: MISSING_FILE, no folder; SLICE_GAP, numbers that are missing or come twice.
        """
        if not path.is_dir():
            raise DataFault.of(
                "MISSING_FILE",
                found="a file" if path.exists() else "nothing",
                expected="a folder of pictures, one a slice",
                fix="check the path",
                path=path,
            )
        named = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        numbers = [_numbers(file) for file in named]
        last = [number[-1] if number else -1 for number in numbers]
        if len(set(last)) < len(last) or -1 in last:  # several series, or names without numbers
            found = "names without a number of the slice" if -1 in last else "two slices of one number"
        elif missing := sorted(set(range(min(last), max(last))) - set(last)):
            few = ", ".join(map(str, missing[:6])) + (", ..." if len(missing) > 6 else "")
            found = f"{len(named)} slices, and none of number {few}"
        else:
            return tuple(file for _, file in sorted(zip(last, named, strict=True)))
        raise DataFault.of(
            "SLICE_GAP",
            found=found,
            expected="one picture a slice, numbered without a gap",
            fix="copy the missing slices there, one series a folder",
            path=path,
        )


def _numbers(file: Path) -> list[int]:
    return [int(word) for word in _NUMBER.findall(file.stem)]


def _size(array: npt.NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape[::-1]))


def _grey(file: Path) -> npt.NDArray[Any]:
    """The (H, W) grey values of a picture; one that is stored as colour must have no colour in it."""
    try:
        with Image.open(file) as picture:
            picture.load()
            if picture.mode in _GREY:
                return np.asarray(picture).astype(_GREY[picture.mode])
            channels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow makes of damage
        found = f"cannot be read as a picture ({error})"
        raise DataFault.of("CORRUPT", found=found, expected="a whole picture", fix=_AGAIN, path=file) from None
    if (channels != channels[..., :1]).any():
        found = "a picture with colour"
        raise DataFault.of("COLOUR", found=found, expected="grey values", fix=f"{_AGAIN}, without overlays", path=file)
    return channels[..., 0]
