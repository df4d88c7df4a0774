"""Learning curves as a picture: small panels side by side, each with lines and levels, written as SVG by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 230, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 24, 22
_COLUMNS = 4
_LEGEND = 26


@dataclass(frozen=True)
class Style:
    """color: of CSS. dash: of SVG's stroke-dasharray, "" for a whole line."""

    color: str
    width: float = 1.5
    dash: str = ""


@dataclass(frozen=True)
class Line:
    """points: (x, y), in rising order of x. name: in the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    style: Style


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]


def svg(panels: Sequence[Panel], x_label: str) -> str:
    """All panels have one axis of x, from 0, and each its own of y. Lines of one name have one style."""
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = columns * _WIDTH, rows * _HEIGHT + _LEGEND
    longest = max(x for panel in panels for line in panel.lines for x, _ in line.points)
    drawn = [
        f'<g transform="translate({place % columns * _WIDTH} {place // columns * _HEIGHT})">'
        + "".join(_panel(panel, longest))
        + "</g>"
        for place, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="10" fill="#333"><rect width="{width}" height="{height}" fill="#fff"/>'
        + "".join(drawn)
        + "".join(_legend(panels, height - 9, x_label))
        + "</svg>\n"
    )


def smoothed(points: Sequence[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """Means of neighbours, so that at most `count` points are left."""
    size = max(1, math.ceil(len(points) / count))
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _panel(panel: Panel, longest: float) -> Iterator[str]:
    values = [y for line in panel.lines for _, y in line.points]
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low) or 1.0
    inner, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> str:
        return f"{_LEFT + inner * x / longest:.1f},{_TOP + tall * (high - y) / (high - low):.1f}"

    yield f'<text x="{_LEFT}" y="{_TOP - 8}" font-weight="bold" font-size="11">{escape(panel.title)}</text>'
    yield f'<rect x="{_LEFT}" y="{_TOP}" width="{inner}" height="{tall}" fill="none" stroke="#ccc"/>'
    for value in _ticks(low, high):
        place = at(0, value).partition(",")[2]
        yield f'<path d="M{_LEFT} {place}h{inner}" stroke="#eee"/>'
        yield f'<text x="{_LEFT - 4}" y="{float(place) + 3:.1f}" text-anchor="end">{value:g}</text>'
    for value in (0, longest):
        place = at(value, low).partition(",")[0]
        anchor = "start" if value == 0 else "end"
        yield f'<text x="{place}" y="{_HEIGHT - 9}" text-anchor="{anchor}">{value:,.0f}</text>'
    for line in panel.lines:
        points = " ".join(at(x, y) for x, y in line.points)
        yield f'<polyline points="{points}" fill="none" {_stroke(line.style)}/>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between the two."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [round(step * at, 6) for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _legend(panels: Sequence[Panel], y: float, x_label: str) -> Iterator[str]:
    styles = {line.name: line.style for panel in panels for line in panel.lines}
    x = float(_LEFT)
    for name, style in styles.items():
        yield f'<path d="M{x:.0f} {y - 3:.0f}h18" {_stroke(style)}/>'
        yield f'<text x="{x + 22:.0f}" y="{y:.0f}">{escape(name)}</text>'
        x += 40 + 5.3 * len(name)
    yield f'<text x="{x:.0f}" y="{y:.0f}" fill="#777">{escape(x_label)}</text>'


def _stroke(style: Style) -> str:
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    return f'stroke="{style.color}" stroke-width="{style.width}"{dash}'
