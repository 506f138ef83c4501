"""A DICOM node for trials: keeps what it is sent, answers C-FIND and C-GET, and counts. Needs ``reg2rg[listen]``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from reg2rg.inference.listen.associate import associate
from reg2rg.inference.listen.receiver import pynetdicom
from reg2rg.inference.listen.settings import Node
from reg2rg.scans.dicom.library import pydicom, quiet

_FIND, _GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"


class DicomNode:
    """A node on loopback, in a ``with`` block.

    Args:
        answers: the questions that it answers, of ``"find"`` and ``"get"``.
        keeps_old: keeps the first object under a UID, and answers the next one with success all the same, as archives
            do unless they are told to overwrite.
        refuses: status that every C-STORE is answered with; 0 for none.
        seconds: between having an object and answering so.

    Attributes:
        stored: the SOPInstanceUIDs in the order in which they came, each as often as it came.
        objects: SOPInstanceUID -> data set.
    """

    def __init__(
        self, answers: Sequence[str] = ("find", "get"), keeps_old: bool = False, refuses: int = 0, seconds: float = 0.0
    ) -> None:
        self.answers, self.keeps_old, self.refuses = tuple(answers), keeps_old, refuses
        self.seconds = seconds
        self.stored: list[str] = []
        self.objects: dict[str, Any] = {}
        self._server: Any = None

    def __enter__(self) -> Self:
        library = pynetdicom()
        ae = library.AE(ae_title="NODE")
        for context in library.AllStoragePresentationContexts:
            syntaxes = library.ALL_TRANSFER_SYNTAXES
            gives = True if "get" in self.answers else None  # None leaves roles as they are by default
            ae.add_supported_context(context.abstract_syntax, syntaxes, scu_role=gives, scp_role=gives)
        for question in self.answers:
            ae.add_supported_context({"find": _FIND, "get": _GET}[question])
        events = library.evt
        handlers = [(events.EVT_C_STORE, self._store), (events.EVT_C_FIND, self._find), (events.EVT_C_GET, self._get)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()

    @property
    def address(self) -> Node:
        """Where it listens."""
        return Node("NODE", "127.0.0.1", self._server.socket.getsockname()[1])

    def _store(self, event: Any) -> int:
        if self.refuses:
            return self.refuses
        with quiet():
            data = event.dataset
            data.file_meta = event.file_meta
        self.stored.append(data.SOPInstanceUID)
        if not (self.keeps_old and data.SOPInstanceUID in self.objects):
            self.objects[data.SOPInstanceUID] = data
        time.sleep(self.seconds)
        return 0

    def _asked(self, event: Any) -> list[Any]:
        uid = event.identifier.get("SOPInstanceUID", "")
        return [self.objects[uid]] if uid in self.objects else []

    def _find(self, event: Any) -> Iterator[tuple[int, Any]]:
        for found in self._asked(event):
            answer = pydicom().Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", found.SOPInstanceUID
            yield 0xFF00, answer

    def _get(self, event: Any) -> Iterator[Any]:
        found = self._asked(event)
        yield len(found)
        for one in found:
            yield 0xFF00, one


def send_objects(
    node: Node, objects: Sequence[Any], calling: str = "SCANNER", patience: float = 60.0
) -> list[int | None]:
    """Send data sets to a node in one association, and give the status of each; ``None`` where no answer came.

    Args:
        node: where to.
        objects: data sets with file meta information.
        calling: our AE title.
        patience: seconds after which an answer is no longer waited for.

    Returns:
        an empty list if the node takes no association.
    """
    library = pynetdicom()
    ae = library.AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = patience
    for kind, syntax in sorted({(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in objects}):
        ae.add_requested_context(kind, syntax)
    assoc = associate(ae, node)
    if not assoc.is_established:
        return []
    answers: list[int | None] = []
    for one in objects:
        if not assoc.is_established:
            answers.append(None)
            continue
        with quiet():
            answers.append(getattr(assoc.send_c_store(one), "Status", None))
    if assoc.is_established:
        assoc.release()
    return answers
