"""The parts of a listener by themselves: the spool, the receiver's verdicts, sending, and the worker's supervisor."""

import copy
import dataclasses
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pynetdicom._config
import pytest

from listen_parts import study, wait_for, write_result
from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.inference.listen import receiver as receiving
from reg2rg.inference.listen import service
from reg2rg.inference.listen.associate import associate
from reg2rg.inference.listen.receiver import Receiver
from reg2rg.inference.listen.sending import NotSentError, later, send
from reg2rg.inference.listen.settings import ListenSettings, Node
from reg2rg.inference.listen.spool import Spool, State, key_of
from reg2rg.inference.listen.worker import RUNNING, work
from reg2rg.testing.dicom_node import DicomNode, send_objects

KEY = key_of("1.2.3.1")


@pytest.fixture
def settings(tmp_path):
    return ListenSettings(spool=tmp_path / "spool", out=tmp_path / "out", port=0, quiet_seconds=0.2)


@pytest.fixture
def spool(settings):
    return Spool(settings.spool)


@pytest.fixture
def told():
    return []


@pytest.fixture
def listening(settings, spool, told, monkeypatch):
    """Makes a receiver that listens, and its address."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(pynetdicom._config, "STORE_RECV_CHUNKED_DATASET", False)
    made = []

    def start(**changes):
        one = Receiver(dataclasses.replace(settings, **changes), spool, told.append)
        made.append(one)
        return one, Node("REG2RG", "127.0.0.1", one.start())

    yield start
    for one in made:
        one.stop()


def keep(spool, one, name="in.dcm"):
    """A slice into the spool, as the receiver does it."""
    file = spool.root / "incoming" / name
    pydicom.dcmwrite(file, one, enforce_file_format=True)
    return spool.keep(file, key_of(one.StudyInstanceUID), one.SOPInstanceUID, True)


def do_all(spool, settings, told, report=write_result):
    """Works until the queue is empty or nothing is due."""
    begun = time.monotonic()
    until = lambda: not [e for e in spool.entries() if spool.state(e.key).next_try <= time.time()]  # noqa: E731
    work(spool, settings, report, told.append, until)
    assert time.monotonic() - begun < 20


def test_what_is_kept_twice_replaced_or_late(spool) -> None:
    first, second, third = study(1, 3)
    assert keep(spool, first)[0]
    assert not keep(spool, first)[0]  # the same bytes
    assert keep(spool, second)[0]
    whole = spool.fingerprint(KEY)
    assert spool.enqueue(KEY)
    assert len(spool.entries()) == 1
    second.PatientID = "OTHER"
    changed, size = keep(spool, second)  # the same UID with other bytes
    assert changed
    assert size == sum(file.stat().st_size for file in spool.slices(KEY))
    assert len(spool.slices(KEY)) == 2
    assert spool.fingerprint(KEY) != whole
    again = Spool(spool.root)  # what is on disk is all there is
    assert again.fingerprint(KEY) == spool.fingerprint(KEY)
    assert again.size(KEY) == size
    assert [entry.key for entry in again.entries()] == [KEY]
    assert keep(again, third)[0]
    assert (spool.root.stat().st_mode & 0o777) == 0o700


def test_a_slice_is_on_disk_before_it_is_answered(spool, monkeypatch) -> None:
    """The file's bytes, then its name in its folder, and the folders above."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), fsync(fd))[1])
    keep(spool, study(1, 1)[0])
    [file] = spool.slices(KEY)
    above = [file.parents[1], file.parents[2]]
    assert synced == [spool.root / "incoming" / "in.dcm", *above, file.parent]


def test_done_is_done_and_what_failed_is_tried_when_it_comes_again(spool, settings, told) -> None:
    for number in (1, 2):
        for one in study(number, 3 if number == 1 else 2):
            keep(spool, one)
        assert spool.enqueue(key_of(f"1.2.3.{number}"))
    do_all(spool, settings, told)
    assert [spool.state(key_of(f"1.2.3.{n}")).status for n in (1, 2)] == ["done", "failed"]
    assert not spool.enqueue(KEY)
    assert not spool.enqueue(KEY, again=True)
    assert not spool.enqueue(key_of("1.2.3.2"))
    assert spool.enqueue(key_of("1.2.3.2"), again=True)
    do_all(spool, settings, told)
    assert sum("FEW_SLICES" in line for line in told) == 2
    assert not (spool.root / RUNNING).exists()

    # A kill between the results' coming into place and the note of it: they are found, and not made twice.
    before = (settings.out / KEY / "result.dcm").read_bytes()
    spool.save(KEY, State())
    assert spool.enqueue(KEY)
    do_all(spool, settings, told)
    assert sorted(folder.name for folder in settings.out.iterdir() if folder.name != ".work") == [KEY]
    assert (settings.out / KEY / "result.dcm").read_bytes() == before

    assert spool.clean(time.time() - 60) == 0
    assert spool.clean(time.time() + 60) == 2
    assert spool.slices(KEY) == []
    assert spool.state(KEY).status == "done"
    assert spool.clean(time.time() + 60) == 0
    for one in study(1, 3):
        keep(spool, one)
    assert not spool.enqueue(KEY)  # the whole study once more is what it was


def test_a_fault_of_the_program_or_of_the_disk(spool, settings, told) -> None:
    def broken(scan, out):
        raise RuntimeError("no such kernel")

    def full(scan, out):
        raise OSError(28, "No space left on device")

    for one in study(1, 3):
        keep(spool, one)
    spool.enqueue(KEY)
    with pytest.raises(OSError, match="No space"):
        do_all(spool, settings, told, full)
    assert spool.state(KEY).status == ""  # it waits
    do_all(spool, settings, told, broken)
    assert spool.state(KEY).reason == "RuntimeError: no such kernel"
    [reason] = (spool.root / "quarantine").glob("*/reason.txt")
    assert reason.read_text() == "StudyInstanceUID: 1.2.3.1\nRuntimeError: no such kernel\n"


class Association(SimpleNamespace):
    """As pynetdicom's, which are told apart by what they are and not by what they hold."""

    __hash__ = object.__hash__


def event(file, affected=None, kind=None):
    head = pydicom.dcmread(file, force=True)
    request = SimpleNamespace(
        AffectedSOPInstanceUID=affected or head.get("SOPInstanceUID"),
        AffectedSOPClassUID=kind or head.get("SOPClassUID"),
    )
    idle = SimpleNamespace(restart=lambda: None)
    assoc = Association(
        requestor=SimpleNamespace(ae_title="SCANNER"), abort=lambda: None, dul=SimpleNamespace(_idle_timer=idle)
    )
    return SimpleNamespace(dataset_path=str(file), request=request, assoc=assoc)


def test_bad_input_is_kept_and_named(spool, settings, told, tmp_path) -> None:
    receiver = Receiver(settings, spool, told.append)
    [one] = study(1, 1)
    file = tmp_path / "spool" / "incoming" / "a.dcm"

    def store(change=lambda data: None, **more):
        data = copy.deepcopy(one)
        change(data)
        pydicom.dcmwrite(file, data, enforce_file_format=True)
        return receiver._store(event(file, **more))

    assert store(lambda data: delattr(data, "StudyInstanceUID")) == 0xC000
    assert store(lambda data: setattr(data, "SeriesInstanceUID", "1.2.x")) == 0xC000
    assert store(affected="1.2.3") == 0xA900
    file.write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    assert receiver._store(event_of_bytes(file)) == 0xC000
    texts = sorted((spool.root / "quarantine").glob("*.txt"))
    assert [text.read_text().splitlines()[0] for text in texts] == [
        "no UID: StudyInstanceUID",
        "no UID: SeriesInstanceUID",
        "the data set has other UIDs than the message that brought it",
        "no UID: SOPClassUID, SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID",
    ]
    assert "from: SCANNER" in texts[0].read_text()
    assert [text.with_suffix(".dcm").is_file() for text in texts] == [True] * 4
    assert texts[3].with_suffix(".dcm").read_bytes().endswith(b"\xff" * 50)
    assert store() == 0
    assert len(spool.slices(KEY)) == 1


def event_of_bytes(file):
    request = SimpleNamespace(AffectedSOPInstanceUID="1.2.3", AffectedSOPClassUID="1.2")
    assoc = Association(requestor=SimpleNamespace(ae_title="SCANNER"))
    return SimpleNamespace(dataset_path=str(file), request=request, assoc=assoc)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"most_study_bytes": 2500}, "more than 2500 bytes"),
        ({"least_free_bytes": 1 << 60}, "the disk has less than"),
        ({"most_instance_bytes": 100}, "an object of"),
    ],
)
def test_limits(listening, spool, told, limit, said) -> None:
    _, where = listening(**limit)
    answers = send_objects(where, study(1, 4))
    assert answers[-1] == 0xA700
    assert said in told[-1]
    assert len(spool.slices(KEY)) == answers.count(0) == (2 if "most_study_bytes" in limit else 0)
    assert not list((spool.root / "incoming").iterdir())


def test_a_slow_disk_is_not_the_senders_silence(listening, spool, monkeypatch) -> None:
    kept = spool.keep
    monkeypatch.setattr(receiving, "_IDLE_SECONDS", 1.0)
    monkeypatch.setattr(spool, "keep", lambda *of: (time.sleep(1.5), kept(*of))[1])
    _, node = listening()
    assert send_objects(node, study(1, 2)) == [0, 0]


def test_an_object_without_an_end_is_cut_off(listening, spool, told) -> None:
    """The association ends while it comes, before it has filled the disk."""
    _, where = listening(most_instance_bytes=1 << 20)
    [one] = study(1, 1)
    one.PixelData = bytes(8 << 20)
    assert send_objects(where, [one]) == [None]
    assert "an object of more than 1048576 bytes" in told[0]
    assert spool.slices(KEY) == []


def test_a_study_is_complete_when_it_is_quiet_and_nobody_sends_it(listening, spool) -> None:
    receiver, where = listening(quiet_seconds=0.4)
    ae = pynetdicom.AE()
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    assoc = ae.associate(where.host, where.port)
    one, two = study(1, 2)
    assert assoc.send_c_store(one).Status == 0
    time.sleep(0.6)
    assert receiver.complete() == []  # the association is open still
    assert assoc.send_c_store(two).Status == 0
    assoc.release()
    assert receiver.complete() == []
    assert wait_for(receiver.complete) == [(KEY, True)]
    assert receiver.complete() == []
    other, _ = listening(quiet_seconds=0.0)  # after a restart what was not complete is taken up
    assert other.complete() == [(KEY, False)]


def test_addresses_and_titles() -> None:
    assert Node.of("PACS@10.0.0.5:104") == Node("PACS", "10.0.0.5", 104)
    assert Node.of("PACS@[::1]:104").host == "::1"
    for text in ("PACS", "PACS@host", "PACS@host:x", "PACS@host:70000", "@host:104", "A" * 17 + "@host:1"):
        with pytest.raises(ConfigError):
            Node.of(text)


def test_strangers_are_kept_out(settings) -> None:
    settings.check()
    with pytest.raises(ConfigError, match="everybody who reaches this machine could send"):
        dataclasses.replace(settings, host="0.0.0.0").check()
    dataclasses.replace(settings, host="0.0.0.0", calling=("CT1",)).check()
    with pytest.raises(ConfigError, match="AE title"):
        dataclasses.replace(settings, calling=("C\\T",)).check()


def test_without_the_library(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reg2rg\[listen\]'"):
        receiving.pynetdicom()


@pytest.fixture
def made(spool, settings, told):
    """A study with its result, not sent yet."""
    for one in study(1, 3):
        keep(spool, one)
    spool.enqueue(KEY)
    do_all(spool, settings, told)
    return settings.out / KEY


def to(settings, node):
    return dataclasses.replace(settings, node=node.address)


def test_an_answer_that_comes_at_once_is_not_lost() -> None:
    """Both threads are held up where a crowded machine may hold them: the reader is waited for before any is sent."""
    ae = pynetdicom.AE(ae_title="SCANNER")
    ae.dimse_timeout = 1
    one = study(1, 1)[0]
    ae.add_requested_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID)
    with DicomNode() as node:
        assoc = associate(ae, node.address)
        wait, put = assoc._reactor_checkpoint.wait, assoc.dimse.send_msg
        assoc._reactor_checkpoint.wait = lambda: (wait(), time.sleep(0.1))
        assoc.dimse.send_msg = lambda *message: (put(*message), time.sleep(0.3))
        answers = [getattr(assoc.send_c_store(one), "Status", None) for _ in range(5)]
        assoc.release()
        assert answers == [0] * 5
        assert assoc.is_released
        gone = associate(ae, dataclasses.replace(node.address, port=1))
        assert not gone.is_established
        gone.release()  # does nothing, and does not wait for a reader that is none


def test_what_a_node_has_is_looked_at(made, spool, settings, told) -> None:
    for answers, verified in (
        ((), "answered with success"),
        (("find",), "found by its UID"),
        (("find", "get"), "fetched"),
    ):
        with DicomNode(answers) as node:
            send(spool, KEY, State(), made, to(settings, node), told.append)
            assert verified in (made / "sent.json").read_text()
            assert len(node.stored) == 1
    uid = node.stored[0]
    with DicomNode(keeps_old=True) as node:  # as archives do by default: answered with success, and the old one stays
        old = pydicom.dcmread(made / "result.dcm")
        old.SeriesDescription = "old"
        send_objects(node.address, [old])
        with pytest.raises(NotSentError, match=r"result\.dcm: the node answered with success and has another object"):
            send(spool, KEY, State(), made, to(settings, node), told.append)
    with DicomNode(("find",)) as node, pytest.raises(NotSentError, match="does not find it"):
        send(spool, KEY, State(sent={uid: "sent"}), made, to(settings, node), told.append)


def test_an_object_that_a_kill_left_half_sent(made, spool, settings, told) -> None:
    uid = str(pydicom.dcmread(made / "result.dcm").SOPInstanceUID)
    for answers, arrived, times in ((("find",), True, 1), (("find",), False, 1), ((), True, 2)):
        with DicomNode(answers) as node:
            if arrived:
                send_objects(node.address, [pydicom.dcmread(made / "result.dcm")])
            state = State(sent={uid: "sending"})
            send(spool, KEY, state, made, to(settings, node), told.append)
            assert state.sent == {uid: "sent"}
            assert node.stored == [uid] * times  # who answers no questions gets the same bytes again


def test_a_node_that_refuses_or_is_not_there(made, spool, settings, told) -> None:
    spool.save(KEY, State(spool.fingerprint(KEY), "made", result=KEY))
    (spool.root / "queue" / f"{1:020d}-{KEY}.json").write_text("{}")
    with DicomNode(refuses=0xA700) as node:
        do_all(spool, to(settings, node), told)
        state = spool.state(KEY)
        assert (state.status, state.tries, state.sent) == ("made", 1, {})
        assert state.next_try > time.time() + 3
        assert "result.dcm: answered A700; again in" in told[-1]
        assert len(spool.entries()) == 1
        where = to(settings, node)
    with pytest.raises(NotSentError, match="cannot be reached"):
        send(spool, KEY, state, made, where, told.append)
    waits = []
    for _ in range(9):
        state = later(state, now=0.0)
        waits.append(state.next_try)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300, 300]


def test_the_worker_is_watched(spool, settings, told) -> None:
    for one in study(1, 3):
        keep(spool, one)
    fingerprint = spool.fingerprint(KEY)
    spool.save(KEY, State(fingerprint))
    watched = service._Supervised([sys.executable, "-c", "raise SystemExit(9)"], spool, settings, told.append)
    for crash in (1, 2, 3):
        watched._note(KEY, False, -9)
        state = spool.state(KEY)
        assert (state.crashes, state.status) == (crash, "" if crash < 3 else "failed")
    assert "ended 3 times with code -9: too little memory" in state.reason
    with watched:
        watched.look()
        wait_for(lambda: watched._process.poll() is not None)
        watched.look()
        assert "the worker ended with code 9; it is started again" in told
        watched.look()
        assert watched._process is None  # not at once
    unable = service._Supervised([sys.executable, "-c", "raise SystemExit(2)"], spool, settings, told.append)
    unable.look()
    wait_for(lambda: unable._process.poll() is not None)
    with pytest.raises(ConfigError, match="the worker could not start"):
        unable.look()


def test_a_listener_ends_in_order(settings, told, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(pynetdicom._config, "STORE_RECV_CHUNKED_DATASET", False)
    end = threading.Event()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    thread = threading.Thread(target=service.listen, args=(settings, command, told.append, end.is_set))
    thread.start()
    wait_for(lambda: told)
    port = int(told[0].partition("127.0.0.1:")[2].partition(";")[0])
    assert send_objects(Node("REG2RG", "127.0.0.1", port), study(1, 3)) == [0, 0, 0]
    wait_for(lambda: any("complete, 3 slices" in line for line in told))
    with pytest.raises(ConfigError, match="another listener uses this spool"):
        service.listen(settings, command, told.append)
    end.set()
    thread.join(20)
    assert not thread.is_alive()


def test_signals_are_noted() -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with service.told_to_end() as got:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: got)
    assert got == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
