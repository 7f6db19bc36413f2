"""Answers of the upstream that are counted in batches: a request costs one append, sorting is done for many.

Whoever reads folds first, so what is shown is the same as if each had been counted at once; but the exemplar
of a bucket that other kinds of requests fill as well may be a little older. Only what a later event may
contradict (that the upstream can be reached) is told at once.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from operator import itemgetter
from typing import Final

from cbk_gateway.telemetry.instruments import HistogramCell
from cbk_gateway.telemetry.observers import AnswerCells
from cbk_gateway.telemetry.traffic import RequestCells

_MOST_WAITING: Final = 256
_MOST_BINDINGS: Final = 65_536
_histograms_of: Final = itemgetter(0)
_cells_of: Final = itemgetter(1)


class ForwardedCells:
    """The series that one kind of forwarded request moves. Made by `ForwardedAnswers.bind`.

    Attributes:
        histograms: Number of the histograms that it moves, which other kinds may move as well.
        reachable: Whether the upstream answers at all.
    """

    __slots__ = ("_answers", "_requests", "histograms", "reachable")

    def __init__(self, histograms: int, requests: RequestCells, answers: AnswerCells) -> None:
        self.histograms = histograms
        self._requests = requests
        self._answers = answers
        self.reachable = answers.reachable

    def count(self, times: int) -> None:
        """Count so many requests."""
        self._requests.count(times)
        self._answers.count(times)

    def spread(self, rows: list[_Row]) -> None:
        """Spread the times of these requests over the histograms, the newest last."""
        _, _, totals_s, upstreams_s, request_ids = zip(*rows, strict=True)
        self._requests.spread(totals_s, upstreams_s, request_ids)
        self._answers.spread(upstreams_s)


_Row = tuple[int, ForwardedCells, float, float, str]
"""Histograms and series of its kind, its seconds in all and those of the upstream, its request id."""


class ForwardedAnswers:
    """Requests that were answered by the first attempt at the upstream, and not counted yet."""

    __slots__ = ("_histograms", "_kinds", "_rows")

    def __init__(self) -> None:
        self._kinds: dict[tuple[RequestCells, AnswerCells], ForwardedCells] = {}
        self._histograms: dict[tuple[HistogramCell, ...], int] = {}
        self._rows: list[_Row] = []

    def bind(self, requests: RequestCells, answers: AnswerCells) -> ForwardedCells:
        """The cells of this kind of request, for callers that keep them."""
        cells = self._kinds.get((requests, answers))
        if cells is None:
            if len(self._kinds) >= _MOST_BINDINGS:
                self._kinds.clear()
            # Their labels have few values, so there are few of them.
            moved = (*requests.histograms, answers.first_byte)
            number = self._histograms.setdefault(moved, len(self._histograms))
            cells = self._kinds[requests, answers] = ForwardedCells(number, requests, answers)
        return cells

    def note(self, cells: ForwardedCells, total_s: float, upstream_s: float, request_id: str) -> None:
        """Count one request; `upstream_s` is at most `total_s`."""
        cells.reachable.value = 1
        rows = self._rows
        rows.append((cells.histograms, cells, total_s, upstream_s, request_id))
        if len(rows) >= _MOST_WAITING:
            self.fold()

    def fold(self) -> None:
        """Bring the series up to date."""
        rows, self._rows = self._rows, []
        for cells, times in Counter(map(_cells_of, rows)).items():
            cells.count(times)
        # Stable: the newest stays the last.
        rows.sort(key=_histograms_of)
        for _, alike in groupby(rows, _histograms_of):
            its_rows = list(alike)
            its_rows[0][1].spread(its_rows)
