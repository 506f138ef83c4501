"""The error of a broken contract."""

from __future__ import annotations


class ContractError(AssertionError):
    """A component breaks its contract; the message says which part, what was found and what is expected."""


def require(good: bool, component: object, part: str, found: str, expected: str) -> None:
    """Raise `ContractError` unless `good`."""
    if not good:
        raise ContractError(f"{type(component).__name__}: {part}: found {found}, expected {expected}")
