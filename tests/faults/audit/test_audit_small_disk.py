"""Small real file systems: a tmpfs in a mount namespace of its own, really full, out of inodes, read-only.

The preloaded disk of the other suite runs everywhere and by default; this is the long form of it, which
needs a kernel that lets the tests mount (as root, or in a user namespace) and fails where it does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from cbk_gateway.audit.verify import keys_at, verify
from faults.audit.test_audit_disk import HERE, Served

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

MOUNT = 'mount -t tmpfs -o "$1" none "$2" && echo ready && exec cat'


class SmallDisk:
    """A mounted tmpfs that only its namespace sees, and that is looked at through `/proc`."""

    def __init__(self, holder: subprocess.Popen[bytes], place: Path, *, is_mine: bool) -> None:
        self._enter = ["nsenter", *(["-U", "--preserve-credentials"] if is_mine else []), "-m"]
        self._holder = holder
        self.place = place
        self.seen = Path(f"/proc/{holder.pid}/root{place}")

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a program where the disk is."""
        return [*self._enter, "-t", str(self._holder.pid), *command]

    def remount(self, options: str) -> None:
        """Mount it with other options."""
        subprocess.run(self.inside("mount", "-o", f"remount,{options}", str(self.place)), check=True)

    def fill(self) -> Path:
        """Take all of its space."""
        ballast = self.seen / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        return ballast

    def take_inodes(self, but: int = 0) -> list[Path]:
        """Take all of its inodes but a few."""
        taken: list[Path] = []
        with suppress(OSError):
            while True:
                one = self.seen / f"empty-{len(taken)}"
                one.touch()
                taken.append(one)
        for one in taken[len(taken) - but :] if but else ():
            one.unlink()
        return [one for one in taken if one.exists()]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[SmallDisk]:
    """Mount a tmpfs; it is gone with its namespace."""
    place = folder / "disk"
    place.mkdir()
    is_mine = os.geteuid() != 0
    unshare = ["unshare", *(["-U", "-r"] if is_mine else []), "-m"]
    command = [*unshare, "sh", "-c", MOUNT, "sh", options, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "this kernel mounts nothing for the tests"
        yield SmallDisk(holder, place, is_mine=is_mine)


@contextmanager
def serving(disk: SmallDisk, **settings: object) -> Iterator[Served]:
    """A process with a journal there; at the end nothing it accepted is missing, and all verifies."""
    directory = disk.place / "journal"
    given = orjson.dumps({"deadline_s": 20.0, **settings}).decode()
    program = (sys.executable, str(HERE / "writer_child.py"), "serve", str(directory), given)
    with subprocess.Popen(disk.inside(*program), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert orjson.loads(child.stdout.readline()) == {"ready": True}
        served = Served(disk.seen, child)
        yield served
        assert child.stdin is not None
        child.stdin.close()
        assert orjson.loads(child.stdout.readline()) == {"stopped": True}
    assert served.accepted <= served.recorded()
    report = verify(served.directory, keys_at(disk.seen / "journal.signing.pem"))
    assert report.is_good, report.findings


def test_a_full_disk_refuses_and_takes_again_what_comes_when_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=256k") as disk, serving(disk) as served:
        assert served.intend("before") is None
        ballast = disk.fill()
        served.intend_until("audit_disk", "during")
        for number in range(20):
            assert served.intend(f"full-{number}") == "audit_disk"
        assert served.tell("change")["refused"] == "audit_disk"
        ballast.unlink()
        served.intend_until(None, "after")
        assert not any(name.startswith("full-") for name in served.recorded())


def test_a_disk_that_the_journal_itself_fills_keeps_all_it_accepted(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=192k") as disk, serving(disk, segment_max_bytes=20_000) as served:
        room = disk.seen / "room"
        room.write_bytes(b"x" * 50_000)
        served.intend_until("audit_disk", "w")
        assert len(served.accepted) > 50
        room.unlink()  # for the seal: who keeps no reserve has none in its place


def test_the_reserve_leaves_room_for_the_outcomes(tmp_path: Path) -> None:
    settings = {"reserve_bytes": 250_000, "segment_max_bytes": 20_000}
    with mounted(tmp_path, "size=400k") as disk, serving(disk, **settings) as served:
        served.intend_until("audit_space", "w")
        for name in served.accepted:
            served.tell(f"close {name}")
        assert served.tell("flush")["refused"] is None
        lines = (
            line for path in served.directory.rglob("*.jsonl") for line in path.read_bytes().splitlines()
        )
        closed = {one["request_id"] for one in map(orjson.loads, lines) if one["kind"] == "outcome"}
        assert closed == served.accepted


def test_without_inodes_writes_stop_before_the_last_is_gone(tmp_path: Path) -> None:
    with (
        mounted(tmp_path, "size=4m,nr_inodes=64") as disk,
        serving(disk, reserve_inodes=10) as served,
    ):
        assert served.intend("before") is None
        taken = disk.take_inodes(but=5)
        served.intend_until("audit_space", "during")
        for one in taken:
            one.unlink()
        served.intend_until(None, "after")


def test_a_rotation_without_an_inode_loses_nothing(tmp_path: Path) -> None:
    with (
        mounted(tmp_path, "size=4m,nr_inodes=64") as disk,
        serving(disk, segment_max_bytes=4000) as served,
    ):
        assert served.intend("before") is None
        taken = disk.take_inodes()
        served.intend_until("audit_disk", "during")
        for one in taken:
            one.unlink()
        served.intend_until(None, "after")
        for number in range(50):
            assert served.intend(f"rotating-{number}") is None


def test_a_read_only_disk_is_refused_at_the_start_in_a_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=256k") as disk:
        with serving(disk) as served:
            assert served.intend("before") is None
        disk.remount("ro")
        program = (sys.executable, str(HERE / "writer_child.py"), "serve", str(disk.place / "journal"), "{}")
        ran = subprocess.run(disk.inside(*program), capture_output=True, text=True, check=False, input="")
        assert ran.returncode != 0
        assert "JournalFault: cannot write the audit journal" in ran.stderr
        assert "Read-only file system" in ran.stderr


def test_a_deleted_directory_is_made_anew_with_what_was_in_it(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=4m") as disk, serving(disk) as served:
        assert served.intend("before") is None
        shutil.rmtree(served.directory)
        assert served.intend("after") is None
        assert served.recorded() == {"before", "after"}
