"""What spreadsheet programs do to a table before it comes here: text cut short, errors in cells, rounded ids."""

from __future__ import annotations

import re

from reg2rg.core.errors import DataFault

LONGEST_CELL = 32_767
"""Characters that a cell of Excel holds; a longer text is cut there without a word."""
_ERRORS = ("#NAME?", "#REF!", "#VALUE!", "#N/A", "#NULL!", "#DIV/0!", "#NUM!", "#SPILL!", "#CALC!")
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d{1,3}", re.IGNORECASE)
_LOST = re.compile("\ufffd|\u951f\u65a4\u62f7|\u00c3[\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u2122]")
"""The sign for what cannot be read, what becomes of it in GBK, and UTF-8 that was read as Latin-1."""


def check_cell(text: str, column: str, study: str, where: str) -> None:
    """Refuse a text that a spreadsheet has spoilt.

    Args:
        text: of the cell.
        column: its name.
        study: whose it is.
        where: file and line.

    Raises:
        DataFault: ``TEXT_CUT``: as long as a cell of Excel can be. ``CELL_ERROR``: an error in place of a text.
    """
    # Excel counts UTF-16 units, so that a sign beyond the first plane is two.
    units = len(text) + sum(letter > "\uffff" for letter in text) if len(text) > LONGEST_CELL // 2 else len(text)
    if units == LONGEST_CELL:
        raise DataFault.of(
            "TEXT_CUT",
            study=study,
            path=where,
            found=f"{column} has {LONGEST_CELL:,} characters, as many as a cell of Excel holds",
            expected="a whole text",
            fix="export the table again without Excel, or give the row the split test without a report",
        )
    if text.strip().upper() in _ERRORS:
        raise DataFault.of(
            "CELL_ERROR",
            study=study,
            path=where,
            found=f"{column} is {text.strip()}, a spreadsheet's error",
            expected="a text; one that begins with = or - is taken for a formula",
            fix="export the table again, or empty the cell",
        )


def whole_id(name: str, where: str) -> str:
    """An id that is no rounded number.

    Raises:
        DataFault: ``ROUNDED_ID``: such as ``1.23457E+11``; many ids have become one.
    """
    if _ROUNDED.fullmatch(name.strip()):
        raise DataFault.of(
            "ROUNDED_ID",
            study=repr(name),
            path=where,
            found=f"the id {name!r} is a number that a spreadsheet has rounded",
            expected="the id with all its digits",
            fix="export the table again with the column as text",
        )
    return name


def lost_signs(text: str) -> str:
    """The first sign that the text's encoding was lost on the way, with what stands around it; else ``""``."""
    found = _LOST.search(text)
    return repr(text[max(0, found.start() - 15) : found.end() + 15]) if found is not None else ""
