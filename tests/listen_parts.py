"""A listener for tests: its worker makes one DICOM object a study, from nothing but the study's slices.

Run as a program it is the listener, or, with ``--worker``, its worker.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from reg2rg.core.errors import DataFault
from reg2rg.inference.listen.service import listen
from reg2rg.inference.listen.settings import ListenSettings, Node
from reg2rg.inference.listen.spool import Spool
from reg2rg.inference.listen.worker import work
from reg2rg.runners.parent import end_with_parent


def study(number: int, count: int = 6, side: int = 8) -> list:
    """The slices of a study of its own."""
    from dicom_files import slices

    return slices(np.full((side, side, count), number, np.int16), uid=f"1.2.3.{number}.5", study=f"1.2.3.{number}")


def write_result(scan: Path, out: Path) -> None:
    """One structured report on a study, its UID made of the slices; of fewer than 3 slices there is none."""
    uids = sorted(
        str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in scan.iterdir()
    )
    while (scan.parent / "slow").exists():  # computes until it may end
        np.linalg.svd(np.random.default_rng(0).random((200, 200)))
    if (scan.parent / "takes").exists():
        time.sleep(float((scan.parent / "takes").read_text()))
    if len(uids) < 3:
        raise DataFault.of("FEW_SLICES", found=f"{len(uids)} slices", expected="3", fix="send the whole study")
    head = pydicom.dcmread(next(scan.iterdir()), stop_before_pixels=True)
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    number = int.from_bytes(hashlib.sha256("".join(uids).encode()).digest()[:12])
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID = head.StudyInstanceUID, f"2.25.{number}1"
    one.Modality, one.PatientName, one.SeriesDescription = "SR", "Dö^Ayşe", f"{len(uids)} slices"
    one.SpecificCharacterSet = "ISO_IR 192"
    pydicom.dcmwrite(out / "result.dcm", one, enforce_file_format=True)
    (out / "result.txt").write_text(f"{len(uids)} slices\n")


class Running:
    """A listener in a process of its own, in a ``with`` block."""

    def __init__(self, root: Path, node: Node | None = None, **settings) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        values = {"quiet_seconds": 0.5, "port": self.port, **settings, "node": None if node is None else str(node)}
        (root / "settings.json").write_text(json.dumps(values))
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        begun = len(self.log())
        with open(self.root / "log.txt", "a") as log:
            self.process = subprocess.Popen([sys.executable, __file__, str(self.root)], stdout=log, stderr=log)
        wait_for(lambda: " at 127.0.0.1:" in self.log()[begun:] or self.process.poll() is not None)

    def kill(self) -> None:
        """End it as nothing in order ends."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        path = self.root / "log.txt"
        return path.read_text() if path.exists() else ""

    @property
    def address(self) -> Node:
        return Node("REG2RG", "127.0.0.1", self.port)

    def results(self) -> list[str]:
        """Names of the folders of results."""
        out = self.root / "out"
        return sorted(f.name for f in out.iterdir() if not f.name.startswith(".")) if out.exists() else []


def wait_for(condition, seconds: float = 30.0):
    """What `condition` gives once that is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Kills:
    """What kills did: studies without a report on all their slices, and objects that were sent more than once."""

    kills: int
    lost: list[str]
    twice: list[str]
    moments: dict[str, int]


def kill_at_random_moments(root: Path, kills: int, seed: int = 0, count: int = 6) -> Kills:
    """Send a study a kill, as a scanner does: what is not answered with success is sent again, until it is.

    Studies come all the time, each in several associations with pauses, so that kills meet the receiving, the queue,
    the reporting and the sending.
    """
    from reg2rg.testing.dicom_node import (
        DicomNode,
        send_objects,
    )  # here: it brings torch, which the listener is without

    chance, moments = random.Random(seed), {}
    with DicomNode(seconds=0.3) as node, Running(root, node.address, quiet_seconds=0.4) as run:
        (root / "spool" / "work" / "takes").write_text("0.4")

        def send() -> None:
            pause = random.Random(seed + 1)
            for number in range(1, kills + 1):
                pending = study(number, count)
                while pending:
                    answers = send_objects(run.address, pending[: pause.randint(1, count)], patience=5)
                    pending = pending[answers.count(0) :]
                    time.sleep(pause.uniform(0.0, 0.2))
                time.sleep(pause.uniform(0.5, 2.5))

        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(kills):
            time.sleep(chance.uniform(0.1, 3.5))
            moment = moment_of(root)
            moments[moment] = moments.get(moment, 0) + 1
            run.kill()
            run.start()
        sender.join()

        def whole() -> set[str]:
            found = list(node.objects.values())
            return {str(one.StudyInstanceUID) for one in found if one.SeriesDescription == f"{count} slices"}

        wanted = {f"1.2.3.{number}" for number in range(1, kills + 1)}
        wait_for(lambda: wanted <= whole() and not list((root / "spool" / "queue").glob("*.json")), 120)
        time.sleep(1)
        twice = sorted({uid for uid in node.stored if node.stored.count(uid) > 1})
        return Kills(kills, sorted(wanted - whole()), twice, moments)


def moment_of(root: Path) -> str:
    """What a listener seems to be doing."""
    spool = root / "spool"
    if (spool / "running.json").exists():
        return "reporting"
    if list((spool / "queue").glob("[!.]*.json")):
        return "queueing or sending"
    return "receiving or idle"


def settings_of(root: Path) -> ListenSettings:
    values = json.loads((root / "settings.json").read_text())
    node = values.pop("node")
    values["calling"] = tuple(values.get("calling", ()))
    return ListenSettings(
        spool=root / "spool", out=root / "out", **values, node=None if node is None else Node.of(node)
    )


def main() -> None:
    end_with_parent()
    root = Path(sys.argv[1])

    def tell(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    if "--worker" in sys.argv:
        work(Spool(root / "spool"), settings_of(root), write_result, tell)
    else:
        listen(settings_of(root), [sys.executable, __file__, str(root), "--worker"], tell)


if __name__ == "__main__":
    main()
