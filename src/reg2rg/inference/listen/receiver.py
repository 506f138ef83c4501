"""The C-STORE receiver: what it takes, what it refuses with which status, and when a study is complete."""

from __future__ import annotations

import importlib
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reg2rg.core.errors import MissingExtraError
from reg2rg.inference.listen.settings import ListenSettings
from reg2rg.inference.listen.spool import Spool, key_of
from reg2rg.scans.dicom.frames import CT_CLASSES
from reg2rg.scans.dicom.library import pydicom, quiet

SUCCESS, NO_ROOM, NO_MATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_TAGS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_IDLE_SECONDS = 300.0
_SLACK = 1 << 20


def pynetdicom() -> Any:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("pynetdicom")
    except ModuleNotFoundError as error:
        if error.name != "pynetdicom":
            raise
        raise MissingExtraError("listen: pynetdicom is not installed. Fix: pip install 'reg2rg[listen]'") from None


class Receiver:
    """Takes studies into a spool, and says which are complete.

    Args:
        settings: where and from whom, and the limits.
        spool: where to.
        tell: is told of what is worth a line of the log.
    """

    def __init__(self, settings: ListenSettings, spool: Spool, tell: Callable[[str], None]) -> None:
        self.settings, self.spool, self.tell = settings, spool, tell
        self._lock = threading.Lock()
        self._arrived: dict[str, float] = {}
        self._sent: set[str] = set()
        self._open: defaultdict[Any, set[str]] = defaultdict(set)
        self._bytes: defaultdict[Any, int] = defaultdict(int)
        self._server: Any = None

    def start(self) -> int:
        """Listen, and give the port. What a kill left behind is taken up: studies that were not complete.

        Raises:
            OSError: the port is taken.
        """
        library = pynetdicom()
        for file in (self.spool.root / "incoming").iterdir():
            file.unlink()
        tempfile.tempdir = str(self.spool.root / "incoming")  # where the library writes what comes in
        library._config.STORE_RECV_CHUNKED_DATASET = True  # to disk as it comes, not to memory
        with self._lock:
            self._arrived = dict.fromkeys(self.spool.studies(), time.monotonic())
        ae = library.AE(ae_title=self.settings.ae)
        ae.require_calling_aet = list(self.settings.calling)
        ae.maximum_associations = self.settings.associations
        ae.network_timeout, ae.dimse_timeout, ae.acse_timeout = _IDLE_SECONDS, _IDLE_SECONDS, 30
        ae.add_supported_context("1.2.840.10008.1.1")  # C-ECHO
        syntaxes = [*library.ALL_TRANSFER_SYNTAXES]
        for context in library.AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, syntaxes)
        events = library.evt
        handlers = [
            (events.EVT_C_STORE, self._store),
            (events.EVT_DATA_RECV, self._count),
            (events.EVT_CONN_CLOSE, self._closed),
            (events.EVT_REJECTED, self._rejected),
            (events.EVT_ABORTED, self._aborted),
        ]
        self._server = ae.start_server((self.settings.host, self.settings.port), block=False, evt_handlers=handlers)
        port: int = self._server.socket.getsockname()[1]
        return port

    def stop(self) -> None:
        """Take nothing more."""
        self._server.shutdown()

    def complete(self) -> list[tuple[str, bool]]:
        """The studies that became complete since the last call, each with whether slices of it came since the start."""
        now = time.monotonic()
        with self._lock:
            held = set().union(*self._open.values()) if self._open else set()
            found = [
                key
                for key, last in self._arrived.items()
                if now - last >= self.settings.quiet_seconds and key not in held
            ]
            for key in found:
                del self._arrived[key]
            came = [(key, key in self._sent) for key in found]
            self._sent.difference_update(found)
        return came

    def _store(self, event: Any) -> int:
        file = Path(event.dataset_path)
        self._bytes.pop(event.assoc, None)
        request = event.request
        with quiet():
            try:
                header = pydicom().dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
                found = [str(header.get(name, "")) for name in _TAGS]
            except Exception as error:  # pydicom raises whatever comes of damaged bytes
                return self._refuse(
                    event, file, NOT_UNDERSTOOD, f"no data set that can be read ({type(error).__name__})"
                )
        wrong = [name for name, uid in zip(_TAGS, found, strict=True) if not _UID.fullmatch(uid) or len(uid) > 64]
        if wrong:
            return self._refuse(event, file, NOT_UNDERSTOOD, f"no UID: {', '.join(wrong)}")
        if found[:2] != [str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)]:
            return self._refuse(event, file, NO_MATCH, "the data set has other UIDs than the message that brought it")
        status = self._keep(event, file, key_of(found[2]), found[1], found[0] in CT_CLASSES)
        # The library's idle time runs from what came last. A slow disk is not the sender's silence, which starts now.
        event.assoc.dul._idle_timer.restart()
        return status

    def _keep(self, event: Any, file: Path, key: str, instance: str, ct: bool) -> int:
        size, settings = file.stat().st_size, self.settings
        if size > settings.most_instance_bytes:
            return self._too_much(key, f"an object of {size} bytes, the most is {settings.most_instance_bytes}")
        if ct and self.spool.size(key) + size > settings.most_study_bytes:
            return self._too_much(key, f"more than {settings.most_study_bytes} bytes")
        if self.spool.free() < settings.least_free_bytes:
            return self._too_much(key, f"the disk has less than {settings.least_free_bytes} bytes left")
        try:
            self.spool.keep(file, key, instance, ct)
        except OSError as error:
            return self._too_much(key, f"it cannot be written ({error.strerror})")
        if ct:
            with self._lock:
                self._open[event.assoc].add(key)
                self._sent.add(key)
                self._arrived[key] = time.monotonic()
        return SUCCESS

    def _too_much(self, key: str, why: str) -> int:
        self.tell(f"study {key}: refused, {why}")
        return NO_ROOM

    def _refuse(self, event: Any, file: Path, status: int, why: str) -> int:
        request = event.request
        said = f"{why}\nfrom: {event.assoc.requestor.ae_title}\nSOPClassUID: {request.AffectedSOPClassUID}"
        kept = self.spool.refuse_file(file, f"{said}\nSOPInstanceUID: {request.AffectedSOPInstanceUID}")
        self.tell(f"refused with {status:04X}, {why}: kept as {kept}")
        return status

    def _count(self, event: Any) -> None:
        """End an association that sends more than an object may have, before the disk is full of it."""
        name = event.assoc
        self._bytes[name] += len(event.data)
        if self._bytes[name] > self.settings.most_instance_bytes + _SLACK:
            self._bytes[name] = 0
            self.tell(f"association ended: an object of more than {self.settings.most_instance_bytes} bytes")
            threading.Thread(target=event.assoc.abort, daemon=True).start()

    def _closed(self, event: Any) -> None:
        self._bytes.pop(event.assoc, None)
        with self._lock:
            for key in self._open.pop(event.assoc, ()):
                if key in self._arrived:
                    self._arrived[key] = time.monotonic()

    def _aborted(self, event: Any) -> None:
        self.tell(f"association with {event.assoc.requestor.ae_title} broken off")

    def _rejected(self, event: Any) -> None:
        self._bytes.pop(event.assoc, None)
        self.tell(f"association rejected: {event.assoc.requestor.ae_title} may not send, or too many are open")
