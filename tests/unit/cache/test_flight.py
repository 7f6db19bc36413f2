"""Who waits for whom within a worker."""

from __future__ import annotations

import asyncio
import gc

from cbk_gateway.cache.flight import Answered, Declined, Flight, Flights, Promoted

Flown = Flight[str, str]


def flights() -> Flights[str, str]:
    names = iter(f"t{number}" for number in range(100))
    return Flights(lambda: next(names))


def opened(among: Flights[str, str], digest: str = "d", reads: tuple[str, ...] = ("bot",)) -> Flown:
    return among.open("acme", digest, reads, 1)


async def test_all_followers_get_what_the_leader_brings() -> None:
    one = opened(flights())
    places = [one.follow() for _ in range(3)]
    assert one.followers == 3
    one.land(Answered("copy", 200, is_stored=True))
    assert [place.result() for place in places] == [Answered("copy", 200, is_stored=True)] * 3
    assert one.followers == 0


async def test_a_leader_hands_over_to_the_first_that_still_waits() -> None:
    one = opened(flights())
    places = [one.follow() for _ in range(3)]
    places[0].cancel()
    assert one.promote("fill")
    assert places[1].result() == Promoted("fill")
    assert not places[2].done()
    one.land(Declined("too-large"))
    assert places[2].result() == Declined("too-large")
    assert not one.promote("fill")


async def test_nobody_joins_what_a_write_made_void_or_what_is_sealed_or_has_no_feed() -> None:
    among = flights()
    one = opened(among)
    assert among.joinable("d") is one
    among.void("acme", frozenset({"dataset"}))
    among.void("globex", frozenset({"bot"}))
    assert among.joinable("d") is one
    among.void("acme", frozenset({"bot"}))
    assert (among.joinable("d"), one.is_void) == (None, True)
    sealed = opened(among, "e")
    among.seal(sealed)
    assert among.joinable("e") is None
    assert not among.open("acme", "f", ("bot",), None).is_joinable


async def test_a_sealed_flight_still_hears_of_writes_and_a_closed_one_does_not() -> None:
    among = flights()
    sealed, closed = opened(among, "d"), opened(among, "e")
    among.seal(sealed)
    among.close(closed)
    among.close(closed)
    among.void_all()
    assert (sealed.is_void, closed.is_void) == (True, False)


async def test_a_newer_flight_is_not_closed_by_the_end_of_an_older_one() -> None:
    among = flights()
    old = opened(among)
    new = opened(among)
    among.close(old)
    assert among.joinable("d") is new
    assert old.token != new.token


async def test_a_flight_that_was_forgotten_is_forgotten_here_too() -> None:
    among = flights()
    opened(among, "d")
    among._by_digest.clear()
    gc.collect()
    assert list(among._all["acme"]) == []
    await asyncio.sleep(0)
