"""A listener as a process: what it makes of studies, what it refuses, and what kills cannot do to it."""

from listen_parts import Running, kill_at_random_moments, study, wait_for
from reg2rg.testing.dicom_node import DicomNode, send_objects


def test_from_a_scanner_to_an_archive(tmp_path) -> None:
    with DicomNode() as node, Running(tmp_path, node.address, study_seconds=3.0, calling=["SCANNER", "NODE"]) as run:
        where = run.address
        assert send_objects(where, study(1), calling="STRANGER") == []
        assert "STRANGER may not send" in run.log()

        assert send_objects(where, study(1)) == [0] * 6
        [uid] = wait_for(lambda: list(node.stored))
        [made] = wait_for(run.results)
        wait_for((tmp_path / "out" / made / "sent.json").exists)
        assert "fetched and equal" in (tmp_path / "out" / made / "sent.json").read_text()
        assert node.objects[uid].PatientName == "Dö^Ayşe"

        # Its own result comes back, and the same slices once more: nothing is made again.
        assert send_objects(where, [node.objects[uid], *study(1)], calling="NODE") == [0] * 7
        # Two slices are too few; with four more it is a study.
        assert send_objects(where, study(2)[:2]) == [0, 0]
        kept = wait_for(lambda: list((tmp_path / "spool" / "quarantine").glob("*/reason.txt")))
        assert "StudyInstanceUID: 1.2.3.2\nFEW_SLICES : 2 slices" in kept[0].read_text()
        assert len(list((kept[0].parent / "ct").iterdir())) == 2
        assert send_objects(where, study(2)[2:]) == [0] * 4
        wait_for(lambda: len(node.stored) == 2)
        assert not kept[0].parent.exists()
        # A slice that comes late makes another result, beside the first.
        assert send_objects(where, study(1, 7)[6:]) == [0]
        wait_for(lambda: f"{made}-2" in run.results())
        assert (tmp_path / "out" / f"{made}-2" / "result.txt").read_text() == "7 slices\n"
        wait_for(lambda: len(node.stored) == 3)

        # One that takes too long is given up, and the next one is reported on.
        slow = tmp_path / "spool" / "work" / "slow"
        slow.touch()
        send_objects(where, study(3))
        wait_for(lambda: "took longer than 3 s" in run.log())
        slow.unlink()
        send_objects(where, study(4))
        wait_for(lambda: len(node.stored) == 4)
        assert len(set(node.stored)) == 4
        log = run.log()
    for told in ("1.2.3.", "Doe", "SECRET1"):
        assert told not in log


def test_two_listeners_on_one_spool(tmp_path) -> None:
    with Running(tmp_path) as run:
        second = Running(tmp_path)
        second.start()
        assert second.process.wait() != 0
        assert "another listener uses this spool" in run.log()
        assert send_objects(run.address, study(1)[:1]) == [0]


def test_kills_lose_nothing_and_send_nothing_twice(tmp_path) -> None:
    """20 kills: benchmarks/listen_faults.py."""
    found = kill_at_random_moments(tmp_path, 3)
    assert (found.kills, found.lost, found.twice) == (3, [], [])
