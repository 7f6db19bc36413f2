"""The results as a picture: what each rung costs, and how far each figure is from its target."""

from __future__ import annotations

import io
import math
import statistics

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from benchmarks.figure import Figure
from benchmarks.report import Rounds

_MET, _MISSED, _COST = "#2f7d4f", "#b3452c", "#3b6ea5"
_MOST = 2.0


def drawn(rounds: Rounds, figures: list[Figure]) -> bytes:
    """The picture in SVG; equal results give equal bytes."""
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
    aimed = [one for one in figures if one.bound and math.isfinite(one.median)]
    picture = Picture(figsize=(11, 2 + 0.32 * (len(rounds) + len(aimed))), layout="constrained")
    heights = [max(1, len(rounds)), max(1, len(aimed))]
    costs, targets = picture.subplots(2, 1, height_ratios=heights)
    _draw_costs(costs, rounds)
    _draw_targets(targets, aimed)
    out = io.BytesIO()
    picture.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw_costs(axes: Axes, rounds: Rounds) -> None:
    axes.set_title("CPU time per request, microseconds (median, smallest to largest)")
    for place, (name, each) in enumerate(rounds.items()):
        values = [one["cpu_us"] for one in each]
        middle = statistics.median(values)
        axes.barh(place, middle, color=_COST, height=0.7)
        axes.hlines(place, min(values), max(values), color="black", linewidth=1)
        axes.annotate(f" {middle:.1f} {name}", (max(values), place), va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(left=1, right=20_000)
    axes.set_yticks([])
    axes.invert_yaxis()


def _draw_targets(axes: Axes, aimed: list[Figure]) -> None:
    axes.set_title("part of what is allowed (left of the line: target met)")
    for place, one in enumerate(aimed):
        parts = [_part(value, one) for value in one.values]
        middle = statistics.median(parts)
        axes.barh(place, middle, color=_MET if one.is_met else _MISSED, height=0.7)
        axes.hlines(place, min(parts), max(parts), color="black", linewidth=1)
        told = f"over {_MOST:.0f}" if middle == _MOST else f"{middle:.2f}"
        axes.annotate(f" {told} {one.name}", (max(0.0, *parts), place), va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(left=0, right=4)
    axes.set_yticks([])
    axes.invert_yaxis()


def _part(value: float, figure: Figure) -> float:
    bound = figure.bound or math.nan
    part = bound / value if figure.at_least and value else value / bound
    return min(max(part, 0.0), _MOST)
