"""What a listener is told: where it listens, where studies and results go, and the limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reg2rg.core.errors import ConfigError

_AE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ae_title(text: str) -> str:
    """An application entity title: 1 to 16 printable ASCII characters without a backslash.

    Raises:
        ConfigError: it is none.
    """
    if not _AE.fullmatch(text):
        raise ConfigError(f"AE title {text!r}: expected 1 to 16 ASCII characters without backslash or outer blanks")
    return text


@dataclass(frozen=True, slots=True)
class Node:
    """Another DICOM node.

    Attributes:
        ae: its AE title.
        host: its address.
        port: its port.
    """

    ae: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Read ``AE@HOST:PORT``.

        Raises:
            ConfigError: something else.
        """
        ae, _, where = text.partition("@")
        host, _, port = where.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigError(f"node {text!r}: expected AE@HOST:PORT, such as PACS@10.0.0.5:104")
        return cls(ae_title(ae), host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.ae}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """How a listener works.

    Attributes:
        spool: folder of received studies, of the queue, and of what was refused.
        out: folder of the results, a folder a study.
        host, port: where it listens; port 0 takes a free one.
        ae: its AE title.
        calling: AE titles that may send; empty lets every one of this machine, and is refused elsewhere.
        node: where DICOM results are sent to, ``None`` for nowhere.
        quiet_seconds: a study is complete when no association that brought slices of it is open, and none came for so
            long.
        study_seconds: a report that takes longer is given up.
        keep_hours: how long a study's slices are kept once it is done.
        most_instance_bytes, most_study_bytes: larger ones are refused.
        least_free_bytes: with less on the spool's disk everything is refused.
        associations: at once.
    """

    spool: Path
    out: Path
    host: str = "127.0.0.1"
    port: int = 11112
    ae: str = "REG2RG"
    calling: tuple[str, ...] = ()
    node: Node | None = None
    quiet_seconds: float = 30.0
    study_seconds: float = 3600.0
    keep_hours: float = 24.0
    most_instance_bytes: int = 2 << 30
    most_study_bytes: int = 8 << 30
    least_free_bytes: int = 2 << 30
    associations: int = 16

    def check(self) -> None:
        """Refuse what would let strangers in.

        Raises:
            ConfigError: an address of the network without a list of those who may send, or what is no AE title.
        """
        for name in (self.ae, *self.calling):
            ae_title(name)
        if self.host not in LOOPBACK and not self.calling:
            raise ConfigError(
                f"listen on {self.host}: everybody who reaches this machine could send. Fix: say who may, "
                "--calling AE,AE, or listen on 127.0.0.1"
            )
