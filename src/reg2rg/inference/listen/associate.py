"""Associations of ours with other nodes, in which no answer is lost."""

from __future__ import annotations

import threading
from typing import Any

from reg2rg.inference.listen.settings import Node

_LOOK_SECONDS = 0.1


def associate(ae: Any, node: Node, **options: Any) -> Any:
    """Open an association, as ``ae.associate`` does; look at ``is_established``.

    pynetdicom reads what comes in by a thread of its own, which it stops for as long as a question of ours is open.
    It takes a thread that is about to stop for one that has stopped, which then throws the answer away where that is
    quick: `findings/pynetdicom-loses-answers-to-its-own-reader.sh`. Here it is waited for.

    Args:
        ae: a ``pynetdicom.AE``.
        node: where to.
        options: what else ``ae.associate`` takes.

    Returns:
        a ``pynetdicom.Association``.
    """
    assoc = ae.associate(node.host, node.port, ae_title=node.ae, **options)
    assoc._reactor_checkpoint = _Gate(assoc)
    return assoc


class _Gate:
    """What ``threading.Event`` is to the library, but that `clear` returns only when the reader stands before it.

    Args:
        reader: the thread that waits here.
    """

    def __init__(self, reader: threading.Thread) -> None:
        self._reader = reader
        self._changed = threading.Condition()
        self._open, self._stands = True, False

    def is_set(self) -> bool:
        return self._open

    def set(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._open = False
            while not self._stands and self._reader.is_alive() and threading.current_thread() is not self._reader:
                self._changed.wait(_LOOK_SECONDS)

    def wait(self) -> None:
        with self._changed:
            while not self._open:
                self._stands = True
                self._changed.notify_all()
                self._changed.wait()
            self._stands = False
