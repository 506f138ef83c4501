"""Results to another node: each object once, whatever kills come between, and what the node has is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reg2rg.core.errors import Reg2RGError
from reg2rg.core.files import write_json
from reg2rg.inference.listen.associate import associate
from reg2rg.inference.listen.receiver import pynetdicom
from reg2rg.inference.listen.settings import ListenSettings, Node
from reg2rg.inference.listen.spool import Spool, State
from reg2rg.scans.dicom.library import pydicom, quiet

_FIND, _GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
_WARNINGS = (0xB000, 0xB006, 0xB007)
_SECONDS = 60.0
_QUESTION_SECONDS = 10.0  # a node that may not be asked, as Orthanc by default, may stay silent


class NotSentError(Reg2RGError):
    """The node did not take a result, or has another object under its UID."""


@dataclass(frozen=True, slots=True)
class _Object:
    file: Path
    kind: str
    uid: str
    study: str
    series: str
    syntax: str


def send(
    spool: Spool, key: str, state: State, folder: Path, settings: ListenSettings, tell: Callable[[str], None]
) -> None:
    """Send the DICOM objects of a folder, and look at what the node has of them.

    Before an object goes out it is noted as ``"sending"``, after the answer as ``"sent"``. One that a kill left at
    ``"sending"`` is asked for (C-FIND) and goes out again only if the node has not got it. A node that answers no
    questions gets it again, the same bytes under the same UID.

    Args:
        spool: where `state` is written.
        key: the study.
        state: changed and written.
        folder: the results; ``sent.json`` is added.
        settings: the node, and our AE title.
        tell: is told of each object.

    Raises:
        NotSentError: the node cannot be reached, refuses, or keeps another object under the same UID.
    """
    node = settings.node
    objects = [_object(file) for file in sorted(folder.glob("*.dcm"))] if node is not None else []
    if node is None or not objects:
        return
    half = [one for one in objects if state.sent.get(one.uid) == "sending"]
    for one, found in _found(node, settings.ae, half).items():
        if found:
            state.sent[one.uid] = "sent"
            spool.save(key, state)
            tell(f"study {key}: {one.file.name} had reached {node.ae} before")
    waiting = [one for one in objects if state.sent.get(one.uid) != "sent"]
    if waiting:
        with _associated(node, settings.ae, {(one.kind, one.syntax) for one in waiting}) as assoc:
            for one in waiting:
                _store(spool, key, state, assoc, one)
                tell(f"study {key}: {one.file.name} sent to {node.ae}")
    verdicts = _verified(node, settings.ae, objects)
    told = {one.uid: {"file": one.file.name, "verified": verdicts[one]} for one in objects}
    write_json(folder / "sent.json", {"node": str(node), "objects": told})


def _store(spool: Spool, key: str, state: State, assoc: Any, one: _Object) -> None:
    if not _accepted(assoc, one.kind, one.syntax):
        raise NotSentError(f"{one.file.name}: the node takes no objects of its class, {one.kind}")
    state.sent[one.uid] = "sending"
    spool.save(key, state)
    with quiet():
        answer = assoc.send_c_store(one.file)
    status = getattr(answer, "Status", None)
    if status is None:
        raise NotSentError(f"{one.file.name}: the connection ended without an answer")
    if status not in (0, *_WARNINGS):
        del state.sent[one.uid]
        spool.save(key, state)
        raise NotSentError(f"{one.file.name}: answered {status:04X}")
    state.sent[one.uid] = "sent"
    spool.save(key, state)


def _object(file: Path) -> _Object:
    with quiet():
        head = pydicom().dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
    meta = head.file_meta
    return _Object(
        file,
        str(meta.MediaStorageSOPClassUID),
        str(meta.MediaStorageSOPInstanceUID),
        str(head.StudyInstanceUID),
        str(head.SeriesInstanceUID),
        str(meta.TransferSyntaxUID),
    )


@contextmanager
def _associated(
    node: Node, ae_title: str, contexts: Iterable[tuple[str, str]], seconds: float = _SECONDS, fetch: bool = False
) -> Iterator[Any]:
    """An association for objects of some classes in some transfer syntaxes; to fetch them, or to send them."""
    library = pynetdicom()
    ae = library.AE(ae_title=ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = seconds
    roles, kinds = [], sorted(contexts)
    for kind, syntax in kinds:
        ae.add_requested_context(kind, syntax or None)
    if fetch:
        ae.add_requested_context(_GET)
        roles = [library.build_role(kind, scp_role=True) for kind in sorted({kind for kind, _ in kinds})]
    handlers = [(library.evt.EVT_C_STORE, _take)]
    assoc = associate(ae, node, ext_neg=roles, evt_handlers=handlers)
    if not assoc.is_established:
        raise NotSentError(f"{node} cannot be reached, or refuses {ae_title}")
    assoc.taken = []
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _take(event: Any) -> int:
    event.assoc.taken.append(event.dataset)
    return 0


def _accepted(assoc: Any, kind: str, syntax: str = "") -> bool:
    """Whether the node takes what is of this class, in this transfer syntax if one is given."""
    found = [context for context in assoc.accepted_contexts if context.abstract_syntax == kind]
    return any(not syntax or syntax in context.transfer_syntax for context in found)


def _query(one: _Object) -> Any:
    query = pydicom().Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = one.study, one.series, one.uid
    return query


def _found(node: Node, ae_title: str, objects: Sequence[_Object]) -> dict[_Object, bool]:
    """Whether the node says that it has each object (C-FIND); those are left out that it gives no answer on."""
    answers: dict[_Object, bool] = {}
    if not objects:
        return answers
    try:
        with _associated(node, ae_title, [(_FIND, "")], _QUESTION_SECONDS) as assoc, quiet():
            for one in objects:
                found = list(assoc.send_c_find(_query(one), _FIND)) if assoc.is_established else []
                if (
                    found and getattr(found[-1][0], "Status", None) == 0
                ):  # whoever may not ask hears nothing, or a failure
                    answers[one] = any(data is not None and data.get("SOPInstanceUID") == one.uid for _, data in found)
    except NotSentError:
        pass  # it takes no questions
    return answers


def _fetched(node: Node, ae_title: str, objects: Sequence[_Object]) -> dict[_Object, Any]:
    """What the node gives back of each object (C-GET); those are left out that it gives no answer on."""
    given: dict[_Object, Any] = {}
    try:
        kinds = {(one.kind, one.syntax) for one in objects}
        with _associated(node, ae_title, kinds, _QUESTION_SECONDS, fetch=True) as assoc, quiet():
            for one in objects:
                if assoc.is_established and _accepted(assoc, _GET) and _accepted(assoc, one.kind):
                    assoc.taken = []
                    list(assoc.send_c_get(_query(one), _GET))
                    given.update((one, data) for data in assoc.taken if data.get("SOPInstanceUID") == one.uid)
    except NotSentError:
        pass
    return given


def _verified(node: Node, ae_title: str, objects: Sequence[_Object]) -> dict[_Object, str]:
    """How it is known that the node has each object: fetched, found, or by its answer alone.

    Raises:
        NotSentError: it has another one under the UID, or none.
    """
    given = _fetched(node, ae_title, objects)
    for one, data in given.items():
        with quiet():
            if not _equal(data, pydicom().dcmread(one.file)):
                raise NotSentError(f"{one.file.name}: the node answered with success and has another object")
    found = _found(node, ae_title, [one for one in objects if one not in given])
    for one, there in found.items():
        if not there:
            raise NotSentError(f"{one.file.name}: the node answered with success and does not find it")
    by = {True: "found by its UID", None: "answered with success"}
    return {one: "fetched and equal, element by element" if one in given else by[found.get(one)] for one in objects}


def _equal(fetched: Any, own: Any) -> bool:
    """Whether two data sets have the same elements; group lengths and padding at the end do not count."""
    one, other = (
        {element.tag: element for element in data if element.tag.element != 0 and element.tag != 0xFFFCFFFC}
        for data in (fetched, own)
    )
    return set(one) == set(other) and all(one[tag] == other[tag] for tag in one)


def later(state: State, now: float | None = None) -> State:
    """The state of a study that could not be sent: tried again after 5, 10, 20 ... and at most 300 seconds."""
    wait = min(300.0, 5.0 * 2 ** min(state.tries, 10))
    return replace(state, tries=state.tries + 1, next_try=(time.time() if now is None else now) + wait)
