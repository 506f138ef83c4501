"""Packages that a segmenter needs and that are no dependency."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from reg2rg.core.errors import MissingExtraError


def installed_version(package: str, extra: str) -> str:
    """Version of an installed package.

    Args:
        package: as the package index calls it.
        extra: of reg2rg, which brings it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        raise MissingExtraError(f"{package} is not installed. Fix: pip install 'reg2rg[{extra}]'") from None
