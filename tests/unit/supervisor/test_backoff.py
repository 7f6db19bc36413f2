"""When a dead worker is started again."""

from __future__ import annotations

from cbk_gateway.supervisor.backoff import FIRST_S, LONGEST_S, SHORT_LIFE_S, Backoff


def test_the_first_death_costs_no_wait_and_the_next_ones_double_it() -> None:
    backoff = Backoff()
    waits = [backoff.wait_s(0.1) for _ in range(12)]
    assert waits[:4] == [0.0, FIRST_S, FIRST_S * 2, FIRST_S * 4]
    assert waits[-1] == LONGEST_S
    assert waits == sorted(waits)


def test_a_worker_that_lived_long_clears_the_record() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.wait_s(0.1)
    assert backoff.wait_s(SHORT_LIFE_S) == 0.0
    assert backoff.wait_s(0.1) == 0.0
