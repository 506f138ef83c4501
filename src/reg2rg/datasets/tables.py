"""Tables of text, read strictly: a clean row, or an error that says where. Every value stays a string."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.registry import did_you_mean
from reg2rg.core.text import TextGate

DELIMITERS = (",", ";", "\t")
_EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>", "not given", "not given."})
_SHOWN = 10
_GUESS_BYTES = 1 << 20
_LONGEST_CELL = 1 << 30
"""Characters; Python's own limit of 131,072 would stop at a quote that is not closed, with words about limits."""
_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?\s*$', re.IGNORECASE)
"""The line that tells Excel the delimiter, before the header."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        line: line of the file, from 1, at which the row starts.
        values: column -> text.
    """

    line: int
    values: Mapping[str, str]


def is_empty(text: str) -> bool:
    """Whether a cell stands for nothing: empty, or a spelling of nothing such as ``nan``, ``None``, ``Not given.``."""
    return text.strip().lower() in _EMPTY


def clean(text: str) -> str:
    """A sentence on one line: runs of white space become one space."""
    return " ".join(text.split())


def read_rows(
    path: Path, needed: Sequence[str] = (), encoding: str = "utf-8-sig", gate: TextGate | None = None
) -> Iterator[Row]:
    """Rows of a delimited table, in order.

    The delimiter is the one of ``, ; TAB`` that the header shows, or the one that a first line ``sep=;`` names.

    Args:
        path: the table.
        needed: columns that must be there.
        encoding: how the bytes are to be read; a byte-order mark is dropped.
        gate: cleans every cell, and counts; a new one if ``None``.

    Raises:
        DataFault: ``TABLE_MISSING``, ``TABLE_ENCODING`` (byte offset, guess), ``TABLE_COLUMNS`` (found and needed),
            ``TABLE_ROWS`` (rows with a wrong number of fields, or broken quotes, by line).
        ConfigError: an unknown encoding.
    """
    check_encoding(encoding)
    with _open(path, encoding) as stream:
        lines = _decoded(stream, path, encoding)
        header_line, above = next(lines, ""), 0
        named = _SEPARATOR.match(header_line)
        if named is not None:
            header_line, above = next(lines, ""), 1
        delimiter = named[1] if named is not None else _delimiter(header_line, needed)
        csv.field_size_limit(_LONGEST_CELL)
        reader = csv.reader(_chain(header_line, lines), delimiter=delimiter, strict=True)
        yield from _checked(reader, path, needed, gate or TextGate(), above)


def read_lines(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1; decoded as strictly as `read_rows` does.

    Raises:
        DataFault: ``TABLE_MISSING``, ``TABLE_ENCODING``.
    """
    check_encoding(encoding)
    with _open(path, encoding) as stream:
        for number, line in enumerate(_decoded(stream, path, encoding), start=1):
            if line.strip():
                yield number, line


def check_encoding(encoding: str) -> None:
    """Refuse an encoding that Python does not know."""
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):
        close = did_you_mean(encoding, ["utf-8-sig", "utf-8", "utf-16", "gb18030", "cp1252", "latin-1", "shift_jis"])
        raise ConfigError(f"encoding is {encoding!r}, which is not a text encoding that Python knows.{close}") from None


def _open(path: Path, encoding: str) -> io.TextIOWrapper:
    try:
        return open(path, encoding=encoding, errors="strict", newline="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataFault.of(
            "TABLE_MISSING",
            path=path,
            found=f"cannot be opened: {reason}",
            expected="a readable table",
            fix="check path",
        ) from None


def _decoded(stream: io.TextIOWrapper, path: Path, encoding: str) -> Iterator[str]:
    """Lines of the stream; bytes that do not fit the encoding become one fault with their offset.

    A zero byte here and there is a sign to be cleaned. Many of them are text of two bytes a letter.
    """
    try:
        for line in stream:
            if line.count("\0") * 4 > len(line):
                raise _encoding_fault(path, encoding, path.read_bytes().find(b"\0"), "a zero byte")
            yield line
    except UnicodeError:
        offset, what = _first_bad_byte(path, encoding)
        raise _encoding_fault(path, encoding, offset, what) from None


def _first_bad_byte(path: Path, encoding: str) -> tuple[int, str]:
    data = path.read_bytes()
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the byte-order mark.
        offset = error.start + len(data) - len(error.object)
        return offset, f"byte 0x{data[min(offset, len(data) - 1)]:02x}"
    except UnicodeError as error:
        return 0, str(error)
    return 0, "bytes"  # the file changed while it was read


def _encoding_fault(path: Path, encoding: str, offset: int, what: str) -> DataFault:
    guess = _guess_encoding(path)
    return DataFault.of(
        "TABLE_ENCODING",
        path=path,
        found=f"{what} at byte offset {offset} is not {encoding}; the text looks like {guess}",
        expected=f"text in {encoding}",
        fix=f"save the table as UTF-8, or set encoding: {guess}",
    )


def _guess_encoding(path: Path) -> str:
    """A guess from byte-order marks, zero bytes, and what bytes above 127 would say in Chinese."""
    with open(path, "rb") as stream:
        data = stream.read(_GUESS_BYTES)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in data:
        return "utf-16-le" if data[1::2].count(0) >= data[0::2].count(0) else "utf-16-be"
    return "gb18030" if _is_chinese(data) else "cp1252"


def _is_chinese(data: bytes) -> bool:
    """Whether bytes above 127 come in pairs, and nearly all pairs are usual Chinese signs.

    Two letters of a European word in a row ("Größe") make a pair too, though a rare sign: those that are used stand in
    the rows A1 to A3 (marks, full-width letters) and B0 to D7 (the 3,755 commonest signs) of GB 2312.
    """
    runs = re.findall(rb"[\x80-\xff][\x40-\xff](?:[\x80-\xff][\x40-\xff])*", data)
    pairs = [run[i : i + 2] for run in runs for i in range(0, len(run), 2)]
    usual = sum((0xA1 <= one <= 0xA3 or 0xB0 <= one <= 0xD7) and other >= 0xA1 for one, other in pairs)
    whole = sum(len(run) for run in re.findall(rb"[\x80-\xff]+", data))
    return bool(pairs) and usual >= 0.9 * len(pairs) and whole >= 1.8 * len(pairs)


def _delimiter(header: str, needed: Sequence[str]) -> str:
    """The delimiter under which the header has most of the needed columns, then most columns; comma if none wins."""

    def fit(delimiter: str) -> tuple[int, int]:
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        return len(set(needed) & set(names)), len(names)

    return max(DELIMITERS, key=fit)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _checked(
    reader: Iterator[list[str]], path: Path, needed: Sequence[str], gate: TextGate, above: int
) -> Iterator[Row]:
    """Rows as mappings; wrong rows are collected and raised together after the last one."""
    wrong: list[str] = []
    sizes: Counter[int] = Counter()
    header: list[str] = []
    line = 1 + above
    try:
        for fields in reader:
            start, line = line, reader.line_num + 1 + above  # type: ignore[attr-defined]
            if not header:
                header = check_header([gate(name) for name in fields], path, needed)
            elif fields:
                sizes[len(fields)] += 1
                if len(fields) == len(header):
                    yield Row(start, dict(zip(header, map(gate, fields), strict=True)))
                else:
                    wrong.append(f"line {start} has {len(fields)}")
    except csv.Error as error:
        closed = "a quote that is opened there is never closed" if "end of data" in str(error) else str(error)
        wrong.append(f"line {line}: {closed}")
    if not header and not wrong:
        check_header([], path, needed)
    if wrong and len(sizes) == 1 and sizes.total() == len(wrong) > 1:
        raise DataFault.of(
            "TABLE_ROWS",
            path=path,
            found=f"all {len(wrong):,} rows, from line {2 + above} on, have {next(iter(sizes))} fields",
            expected=f"{len(header)}, as the header has",
            fix='complete the header, or put text with commas in "double quotes"; export the table again',
        )
    if wrong:
        expected = f"{len(header)} fields a row, as the header has; quotes that are closed"
        fix = 'put text with commas, quotes or line breaks in "double quotes"; export the table again'
        raise broken_rows(path, wrong, expected, fix)


def broken_rows(path: Path, wrong: Sequence[str], expected: str, fix: str) -> DataFault:
    """The fault ``TABLE_ROWS`` that lists broken rows; the first ones in words."""
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    found = f"{len(wrong)} broken rows: {'; '.join(wrong[:_SHOWN])}{more}"
    return DataFault.of("TABLE_ROWS", path=path, found=found, expected=expected, fix=fix)


def check_header(fields: Sequence[str], path: Path, needed: Sequence[str]) -> list[str]:
    """The names of columns without blanks around them.

    Raises:
        DataFault: ``TABLE_COLUMNS``: one that is needed is missing, or one stands there twice.
    """
    header = [name.strip() for name in fields]
    missing = [name for name in needed if name not in header]
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if not missing and not doubled:
        return header
    hints = "".join(f" For {name!r}:{hint}" for name in missing if (hint := did_you_mean(name, header)))
    found = f"column {', '.join(missing)} missing" if missing else f"column {', '.join(doubled)} twice"
    raise DataFault.of(
        "TABLE_COLUMNS",
        path=path,
        found=f"{found}; the header has: {', '.join(header) or 'nothing'}",
        expected=f"the columns {', '.join(needed)}" if missing else "each column once",
        fix=f"rename the columns in the header.{hints}",
    )
