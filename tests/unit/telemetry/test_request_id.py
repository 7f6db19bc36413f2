"""Ids of requests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.telemetry.request_id import RequestIds, is_acceptable, new_request_id, request_id_for

MILLISECOND = 1_000_000


def clock_of(*readings_ms: int) -> Iterator[int]:
    return iter([reading * MILLISECOND for reading in readings_ms])


@pytest.mark.parametrize("offered", ["a", "01J-abc_DEF.9", "x" * 64])
def test_a_harmless_id_of_the_client_is_kept(offered: str) -> None:
    assert request_id_for(offered) == offered


@pytest.mark.parametrize(
    "offered",
    [None, "", "x" * 65, "a b", "a\n", "a\r\nX: y", "ä", "\u0661", "a/b", "<script>", "a,b", "a\0"],
)
def test_any_other_id_is_replaced(offered: str | None) -> None:
    made = request_id_for(offered)
    assert made != offered
    assert is_acceptable(made)


@given(st.text())
def test_whatever_is_offered_the_id_is_harmless(offered: str) -> None:
    assert is_acceptable(request_id_for(offered))


def test_ids_are_unique() -> None:
    assert len({new_request_id() for _ in range(10_000)}) == 10_000


def test_ids_of_one_process_sort_as_they_were_made() -> None:
    made = [new_request_id() for _ in range(10_000)]
    assert made == sorted(made)


def test_ids_keep_their_order_when_the_clock_steps_back() -> None:
    readings = clock_of(2_000, 1_000, 3_000)
    ids = RequestIds(lambda: next(readings))
    made = [ids.make() for _ in range(3)]
    assert made == sorted(made)


def test_ids_of_two_processes_made_at_once_differ() -> None:
    assert RequestIds(lambda: 0).make() != RequestIds(lambda: 0).make()


def test_an_id_is_time_then_count_then_process() -> None:
    ids = RequestIds(lambda: 0x123 * MILLISECOND, "abcdefabcdef")
    assert ids.make() == "00000000123" + "000001" + "abcdefabcdef"


def test_ids_of_a_look_sort_among_those_made_one_by_one() -> None:
    readings = clock_of(1_000, 2_000, 1_500, 3_000, 3_000)
    ids = RequestIds(lambda: next(readings))
    made = [ids.make()]
    ids.look(10.0)
    made += [ids.next().decode() for _ in range(600)]
    made += [ids.make(), ids.next().decode()]
    ids.look(11.0)
    made += [ids.next().decode(), ids.make()]
    assert made == sorted(made)
    assert len({*made}) == len(made)
    assert [int(one[:11], 16) for one in (made[0], made[1], made[-1])] == [1_000, 2_000, 3_000]
    assert {len(one) for one in made} == {29}
    assert all(is_acceptable(one) for one in made)


def test_a_look_lasts_to_the_end_of_its_millisecond() -> None:
    ids = RequestIds(lambda: 0x123 * MILLISECOND + MILLISECOND // 4)
    ids.look(50.0)
    assert ids.until == pytest.approx(50.0 + 0.000_75, abs=1e-9)


def test_a_forked_process_makes_ids_of_its_own() -> None:
    ids = RequestIds(lambda: 0)
    before = ids.make()
    ids.renew()
    assert ids.make()[17:] != before[17:]


def test_ids_made_after_a_fork_differ_from_the_parents() -> None:
    script = """
import os
from cbk_gateway.telemetry import new_request_id
child = os.fork()
os.write(1, new_request_id().encode() + b"\\n")
if child:
    os.waitpid(child, 0)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    one, other = run.stdout.split()
    assert one[17:] != other[17:]
