"""Errors that reach users: one message that names what was found, what was expected and what to do.

Every class is defined at module level and built from one string, so that it survives pickling on its way out of a
DataLoader worker or a process pool. An exception that cannot be pickled there makes the parent wait for ever.
"""

from __future__ import annotations

from pathlib import Path

EXIT_OK = 0
EXIT_RUNTIME = 1
EXIT_USAGE = 2
EXIT_SKIPPED = 3


class Reg2RGError(Exception):
    """Base of all errors that the command line prints as one message, without a traceback."""

    exit_code = EXIT_RUNTIME


class ConfigError(Reg2RGError):
    """A config, an option or a path that the user can correct before anything runs."""

    exit_code = EXIT_USAGE


class CheckpointError(Reg2RGError):
    """A checkpoint that cannot be written or must not be read."""


class MissingExtraError(Reg2RGError):
    """An optional dependency that is not installed; the message names the extra that brings it."""

    exit_code = EXIT_USAGE


class TooManySkippedError(Reg2RGError):
    """More studies were left out than the stated share, `max_skip`, allows."""

    exit_code = EXIT_SKIPPED


class DataFault(Reg2RGError):  # noqa: N818 (a fault of the data, not of the program)
    """One fault of one study: skipped and counted while many are processed, fatal when it is the only one.

    Attributes:
        code: reason code in capitals, stable across releases, for example ``NOT_HU``.
        study: study id, or ``""`` where none is known.
        path: the file at fault, or ``""``.
    """

    exit_code = EXIT_USAGE
    code: str = "FAULT"
    study: str = ""
    path: str = ""

    @classmethod
    def of(cls, code: str, *, found: str, expected: str, fix: str, path: str | Path = "", study: str = "") -> DataFault:
        """Build the fault with its message from the parts that every message must have."""
        where = " ".join(part for part in (study, str(path)) if part)
        fault = cls(f"{code} {where}: {found} (expected {expected}). Fix: {fix}")
        fault.code, fault.study, fault.path = code, study, str(path)
        return fault

    def for_study(self, study: str) -> DataFault:
        """The same fault with the study id in its message, for code that learns the id later."""
        if self.study or not study:
            return self
        return self._said_as(str(self).replace(self.code, f"{self.code} {study}", 1), study)

    def with_note(self, note: str) -> DataFault:
        """The same fault with something more to know at the end of its message; ``""`` adds nothing."""
        return self._said_as(f"{self} ({note})", self.study) if note else self

    def _said_as(self, message: str, study: str) -> DataFault:
        other = type(self)(message)
        other.code, other.study, other.path = self.code, study, self.path
        return other
