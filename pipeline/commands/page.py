"""A page of tables and bars, for a browser: one file without scripts, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .printable import printable

_WIDTH, _HEIGHT = 600, 14

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } section { overflow-x: auto; }
th, td { padding: .15rem 1.2rem .15rem 0; text-align: right; vertical-align: top; font-variant-numeric: tabular-nums; }
th { font-weight: 500; opacity: .7; }
th:first-child, td:first-child, .text { text-align: left; overflow-wrap: break-word; }
svg { display: block; } .key svg { display: inline; vertical-align: -2px; } .key span { margin-right: 1rem; }
.part0 { fill: #4e79a7; } .part1 { fill: #edc948; } .part2 { fill: #76b7b2; } .part3 { fill: #59a14f; }
.part4 { fill: #b07aa1; } .part5 { fill: #f28e2b; } .part6 { fill: #e15759; } .part7 { fill: #9c755f; }
.part8 { fill: #8885; }
"""

_POLICY = "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Section:
    """A table with its heading. texts: columns of words, which stand left, beside the first. bars: below a table, in
    their order, each as shares of a whole by part; parts: which there may be, in their order."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[str] = ()
    notes: Sequence[str] = ()
    bars: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parts: Sequence[str] = ()


def page(title: str, lines: Iterable[str], sections: Iterable[Section], refresh: int = 0) -> bytes:
    """lines: below the title. refresh: seconds after which a browser is to load it again; 0 for a page that is done."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    body = "".join(f"<p>{_text(line)}</p>\n" for line in lines) + "".join(map(_section, sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(digest=digest)}">\n{again}'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{_text(title)}</h1>\n{body}</body>\n</html>\n"
    ).encode()


def _text(text: str) -> str:
    return html.escape(printable(text))


def _section(section: Section) -> str:
    columns = [(name, ' class="text"' if name in section.texts else "") for name in section.columns]
    head = "".join(f"<th{kind}>{_text(name)}</th>" for name, kind in columns)
    rows = "".join(
        f"<tr>{''.join(f'<td{kind}>{_text(cell)}</td>' for (_, kind), cell in zip(columns, row, strict=True))}</tr>\n"
        for row in section.rows
    )
    notes = "".join(f"<p>{_text(note)}</p>\n" for note in section.notes)
    table = f"<table>\n<tr>{head}</tr>\n{rows}</table>\n"
    return f"<section>\n<h2>{_text(section.heading)}</h2>\n{table}{_bars(section)}{notes}</section>\n"


def _bars(section: Section) -> str:
    """A strip for each row, cut by the shares; each piece tells its own."""
    if not section.bars:
        return ""
    classes = {name: f"part{index}" for index, name in enumerate(section.parts)}
    shown = [name for name in classes if any(shares.get(name) for shares in section.bars.values())]
    key = "".join(f"<span>{_strip([(0, 12, classes[name], name)], 12)} {_text(name)}</span>" for name in shown)
    rows = []
    for label, shares in section.bars.items():
        pieces, start = [], 0.0
        for name in shown:
            width = _WIDTH * shares.get(name, 0.0)
            pieces.append((start, width, classes[name], f"{name} {shares.get(name, 0.0):.1%}"))
            start += width
        rows.append(f"<tr><td>{_text(label)}</td><td>{_strip(pieces, _WIDTH)}</td></tr>\n")
    return f'<p class="key">{key}</p>\n<table>\n{"".join(rows)}</table>\n'


def _strip(pieces: Sequence[tuple[float, float, str, str]], width: int) -> str:
    """pieces: of each start, width, class and what it tells."""
    parts = "".join(
        f'<rect x="{start:.2f}" width="{wide:.2f}" height="{_HEIGHT}" class="{kind}">'
        f"<title>{_text(tells)}</title></rect>"
        for start, wide, kind, tells in pieces
        if wide > 0
    )
    return f'<svg width="{width}" height="{_HEIGHT}" role="img">{parts}</svg>'
