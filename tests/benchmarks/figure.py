"""One number that a measurement found, over its rounds, with what it should be."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

WORSE_BY = 0.10


@dataclass(frozen=True, slots=True)
class Figure:
    """A number over the rounds of one run.

    Attributes:
        name: What it is.
        values: One per round; empty or not finite when it could not be measured.
        bound: What the median should be, at most or at least; None where nothing is asked.
        unit: Of the values; a ratio when empty.
        at_least: Whether larger is better.
        is_kept: Whether it carries over to other runs and is compared with the committed one. Times are not.
    """

    name: str
    values: tuple[float, ...]
    bound: float | None = None
    unit: str = ""
    at_least: bool = False
    is_kept: bool = True

    @property
    def median(self) -> float:
        """The middle of the rounds; not a number when there is none."""
        known = [value for value in self.values if math.isfinite(value)]
        return statistics.median(known) if len(known) == len(self.values) > 0 else math.nan

    @property
    def is_met(self) -> bool | None:
        """Whether it is as wanted; None when nothing is wanted, or nothing was measured."""
        if self.bound is None or math.isnan(self.median):
            return None
        return self.median >= self.bound if self.at_least else self.median <= self.bound

    def is_worse_than(self, before: float) -> bool:
        """Whether it became worse by more than a tenth, and by more than a twentieth of what is allowed.

        The latter is for counts near nothing, of which a tenth means nothing.
        """
        loss = before - self.median if self.at_least else self.median - before
        return loss > max(abs(before) * WORSE_BY, (self.bound or 0.0) / 20)

    def row(self) -> str:
        """Its line of the table, in Markdown."""
        met = {True: "yes", False: "no", None: "" if self.bound is None else "not measured"}[self.is_met]
        sign = ">=" if self.at_least else "<="
        target = "" if self.bound is None else f"{sign} {self._shown(self.bound)}"
        spread = f"{self._shown(min(self.values))} to {self._shown(max(self.values))}" if self.values else ""
        return f"| {self.name} | {self._shown(self.median)} | {spread} | {target} | {met} |"

    def _shown(self, value: float) -> str:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
        text = f"{value:,.{digits}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text) + (
            f" {self.unit}" if self.unit else ""
        )
