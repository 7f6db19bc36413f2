"""Who accepts on which socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbk_gateway.supervisor.shares import shares


@pytest.mark.parametrize(
    ("sockets", "workers", "due"),
    [
        (2, ["0", "1"], {"0": (0,), "1": (1,)}),
        (1, ["0", "1", "2"], {"0": (0,), "1": (0,), "2": (0,)}),
        (3, ["1"], {"1": (0, 1, 2)}),
        (2, ["0", "1", "2"], {"0": (0,), "1": (1,), "2": (0,)}),
        (4, ["0", "1", "2"], {"0": (0, 3), "1": (1,), "2": (2,)}),
        (2, [], {}),
    ],
)
def test_sockets_are_shared_evenly(sockets: int, workers: list[str], due: dict[str, tuple[int, ...]]) -> None:
    assert shares(sockets, workers) == due


@given(st.integers(1, 40), st.lists(st.text(min_size=1), min_size=1, max_size=40, unique=True))
def test_no_socket_is_nobodys_and_no_worker_is_idle(sockets: int, workers: list[str]) -> None:
    due = shares(sockets, workers)
    assert {place for places in due.values() for place in places} == set(range(sockets))
    assert all(due[name] for name in workers)
    sizes = [len(places) for places in due.values()]
    assert max(sizes) - min(sizes) <= 1
