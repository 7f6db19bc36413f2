"""Log lines on their way out."""

from __future__ import annotations

import io
import os
import threading

from cbk_gateway.telemetry.drain import LogDrain


class Stuck(io.StringIO):
    """A stream whose reader takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.released.wait(20)
        return super().write(text)


def test_lines_are_written_in_order() -> None:
    stream = io.StringIO()
    drain = LogDrain(stream)
    for number in range(1000):
        drain.put(b"line %d" % number)
    drain.close()
    assert stream.getvalue().splitlines() == [f"line {number}" for number in range(1000)]
    assert drain.drops == 0


def test_a_stuck_reader_costs_lines_and_no_time() -> None:
    stream = Stuck()
    drain = LogDrain(stream, capacity=10)
    drain.put(b"taken")
    assert stream.entered.wait(20)
    for number in range(50):
        drain.put(b"%d" % number)
    assert drain.drops == 40
    assert not drain.flush(0.01)
    stream.released.set()
    drain.close()
    assert stream.getvalue().split() == ["taken", *map(str, range(10))]


def test_a_closed_stream_is_counted_and_not_raised() -> None:
    stream = io.StringIO()
    stream.close()
    drain = LogDrain(stream)
    drain.put(b"lost")
    drain.close()
    assert drain.drops == 1


def test_a_reader_that_went_away_is_counted_and_not_raised() -> None:
    read, write = os.pipe()
    os.close(read)
    pipe = io.TextIOWrapper(io.FileIO(write, "w"), write_through=True)
    drain = LogDrain(pipe)
    drain.put(b"lost")
    drain.close()
    pipe.close()
    assert drain.drops == 1


def test_a_drain_reborn_writes_to_the_same_stream() -> None:
    stream = io.StringIO()
    first = LogDrain(stream)
    second = first.reborn()
    first.put(b"one")
    first.close()
    second.put(b"two")
    second.close()
    assert stream.getvalue() == "one\ntwo\n"
