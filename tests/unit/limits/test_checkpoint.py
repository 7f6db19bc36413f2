"""Quota notes on disk: the highest wins, broken files harm nothing."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from cbk_gateway.limits.checkpoint import Checkpoint

TODAY = dt.datetime.now(tz=dt.UTC).date().isoformat()
KEY = f"cbkgw:{{acme}}:quota:daily:{TODAY}"


def test_the_highest_of_all_workers_notes_counts(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "a").save({KEY: 5}, {})
    Checkpoint(tmp_path, "b").save({KEY: 9}, {"earlier": 1})
    assert Checkpoint(tmp_path, "c").load() == {KEY: 9, "earlier": 1}


def test_notes_of_long_ago_are_dropped(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "a").save({KEY: 5, "cbkgw:{acme}:quota:monthly:2020-01": 7}, {})
    assert Checkpoint(tmp_path, "b").load() == {KEY: 5}


def test_broken_notes_are_worth_nothing(tmp_path: Path) -> None:
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"x":-1,"y":"z"}')):
        (tmp_path / f"quotas-{name}.json").write_text(text)
    assert Checkpoint(tmp_path, "d").load() == {}


def test_notes_of_workers_that_are_gone_are_taken_over_and_removed(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "old").save({KEY: 5}, {})
    os.utime(tmp_path / "quotas-old.json", (0, 0))
    new = Checkpoint(tmp_path, "new")
    new.save({}, new.load())
    assert [path.name for path in tmp_path.iterdir()] == ["quotas-new.json"]
    assert Checkpoint(tmp_path, "next").load() == {KEY: 5}


def test_nowhere_to_write_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    Checkpoint(blocked / "sub", "a").save({KEY: 1}, {})
    Checkpoint(None, "a").save({KEY: 1}, {})
    assert Checkpoint(None, "a").load() == {}


def test_a_note_that_was_being_written_when_everything_stopped_harms_nothing(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "a").save({KEY: 5}, {})
    (tmp_path / "quotas-a.new").write_bytes(b'{"half')
    again = Checkpoint(tmp_path, "a")
    assert again.load() == {KEY: 5}
    again.save({KEY: 6}, {})
    assert again.load() == {KEY: 6}
