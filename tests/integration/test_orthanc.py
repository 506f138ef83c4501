"""A real archive, Orthanc, takes what is written by C-STORE and gives it back as it was."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")
pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra 'dev')")

from dicom_readers import need  # noqa: E402
from dicom_results import boxes, result, series  # noqa: E402
from reg2rg.inference.exporters import PDF, MeasurementSR, TextSR  # noqa: E402

TURKISH = {"lung": "Akciğerler doğal, ışıklı.", "heart": "Kalp boyutu normal."}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Archive:
    """An Orthanc on loopback."""

    def __init__(self, folder: Path, overwrite: bool, **more: object) -> None:
        self.web, self.dicom = free_port(), free_port()
        (folder / "db").mkdir(parents=True)
        config = {
            "Name": "T", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self.web, "RemoteAccessAllowed": False, "DicomAet": "ORTH", "DicomPort": self.dicom,
            "StableAge": 3, "DefaultEncoding": "Utf8", "OverwriteInstances": overwrite, **more,
        }  # fmt: skip
        (folder / "o.json").write_text(json.dumps(config))
        with (folder / "log").open("wb") as log:
            command = [need("Orthanc"), folder / "o.json"]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        for _ in range(300):
            if self._process.poll() is not None:
                pytest.fail(f"Orthanc ended: {(folder / 'log').read_text(errors='replace')[-2000:]}")
            try:
                self.get("/system")
                return
            except OSError:
                time.sleep(0.1)
        self.end()
        pytest.fail("Orthanc does not answer")

    def get(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", body, timeout=20) as answer:
            return answer.read()

    def find(self, uid: str) -> str:
        """Orthanc's id of an instance."""
        [found] = json.loads(self.get("/tools/lookup", uid.encode()))
        return found["ID"]

    def store(self, files: list[Path]) -> list[int]:
        """Send by C-STORE; the status of each."""
        datasets = [pydicom.dcmread(file) for file in files]
        entity = pynetdicom.AE(ae_title="TEST")
        for kind in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}:
            entity.add_requested_context(*kind)
        link = entity.associate("127.0.0.1", self.dicom, ae_title="ORTH")
        assert link.is_established
        try:
            return [link.send_c_store(one).Status for one in datasets]
        finally:
            link.release()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(params=[False, True], ids=["keeps", "overwrites"])
def archive(request, tmp_path) -> Iterator[Archive]:
    one = Archive(tmp_path / "orthanc", request.param)
    yield one
    one.end()


def write_all(scan: Path, texts: dict[str, str], out: Path) -> list[Path]:
    masks = boxes()
    masks["mediastinum"] = masks["mediastinum"] | masks["lung"]
    made = result(scan, masks, texts)
    files = [path for exporter in (TextSR, MeasurementSR, PDF) for path in exporter().write(made, out)]
    assert len(files) == 5
    return files


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[list[Path], list[Path], list[Path]]:
    """The CT, its report, and the report with a paragraph less."""
    folder = tmp_path_factory.mktemp("written")
    scan = series(folder / "case", PatientName="Şahin^Ayşe", SpecificCharacterSet="ISO_IR 192")
    report = write_all(scan.path, TURKISH | {"bone": "Normal."}, folder / "report")
    return list(scan.path.iterdir()), report, write_all(scan.path, TURKISH, folder / "corrected")


def test_all_is_taken_by_c_store_and_given_back_equal(archive, written):
    scan, report, corrected = written
    sent = [*scan, *report]
    assert archive.store(sent) == [0] * len(sent)
    for file in sent:
        ours = pydicom.dcmread(file)
        own = archive.find(ours.SOPInstanceUID)
        theirs = pydicom.dcmread(io.BytesIO(archive.get(f"/instances/{own}/file")))
        assert ours == theirs, file.name  # element by element; the file's meta information is the archive's
        if "PixelData" in ours:
            assert ours.PixelData == theirs.PixelData
        simple = json.loads(archive.get(f"/instances/{own}/simplified-tags"))
        assert simple["PatientName"] == "Şahin^Ayşe"
        if ours.Modality == "DOC":
            assert archive.get(f"/instances/{own}/pdf") == ours.EncapsulatedDocument[: ours.EncapsulatedDocumentLength]

    # A corrected report is another object, which the archive takes whatever it does with those that it has.
    assert archive.store(corrected) == [0] * len(corrected)
    for file in (*report, *corrected):
        ours = pydicom.dcmread(file)
        theirs = archive.get(f"/instances/{archive.find(ours.SOPInstanceUID)}/file")
        assert ours == pydicom.dcmread(io.BytesIO(theirs)), file
    instances = json.loads(archive.get("/statistics"))["CountInstances"]
    assert instances == len(sent) + 3  # the two SEGs, which know nothing of the text, are the same
