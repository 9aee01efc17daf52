"""How an inspected batch looks: coloured text for a terminal, one self-contained page for a browser."""

from __future__ import annotations

import html
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from t5x_like.inspected import Example, Inspection, Piece, Row, Stream

COLOURS = ("green", "yellow", "magenta", "cyan", "red", "blue")
FATES = {"masked": "green", "random": "red", "kept": "yellow", "replaced": "red"}
"""Colours of tokens that are predicted or judged."""
MARKS = {"random": "~", "kept": "=", "replaced": "~"}
"""In front of such tokens where the text alone would not tell: on a printer, or for eyes that see few colours."""
LEGEND = "~word stands in the place of another, =word stayed as it was; all of them and [MASK] are predicted"
BORDER = "┃"
"""Between two examples that share a packed row."""


# ---- terminal -----------------------------------------------------------------------------------


def to_terminal(inspection: Inspection, title: str, rows: int, console: Console) -> None:
    """Prints the first `rows` rows and the figures of the whole batch. A console that is no terminal gets plain
    lines, unwrapped and without control characters."""

    def put(text: Text | str = "") -> None:
        console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=not console.is_terminal)

    put(Text(title, "bold"))
    for row in inspection.rows[:rows]:
        put()
        put(Text(_row_title(inspection, row.number), "bold"))
        for name in _names(row):
            line = Text(f"  {name:8}")
            for number, example in enumerate(row.examples):
                line.append(f" {BORDER}" if number else "", "bold reverse")
                line.append_text(_coloured(example, name))
            put(line)
    put()
    for name, value in facts(inspection):
        put(f"{name:12} {value}")
    for stream in inspection.streams:
        if stream.rows:
            put()
            put(Text(_stream_title(stream), "bold"))
            for line in histogram(stream.span_lengths):
                put(f"  {line}")


def _coloured(example: Example, name: str) -> Text:
    text = Text()
    for piece in example.texts[name]:
        text.append(_marked(piece), _style(piece))
    return text


def _style(piece: Piece) -> str:
    style = "bold " if piece.special else ""
    if piece.span is not None:
        style += COLOURS[piece.span % len(COLOURS)]
    if piece.fate is not None:
        style += FATES[piece.fate]
    if piece.segment:
        style += " italic"
    return (style if piece.counts else style + " dim").strip()


# ---- page ---------------------------------------------------------------------------------------

_STYLE = """
body { font: 15px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin: 2rem 0 .2rem } .quiet { color: #666 }
p.text { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere }
.name { display: inline-block; width: 5rem; font-weight: 700 }
.special { font-weight: 600; font-size: .85em } .dim { opacity: .45 } .border { font-weight: 700 }
td { padding: .1rem 1.5rem .1rem 0; vertical-align: top } pre { line-height: 1.15 }
.s0 { background: #bbf7d0 } .s1 { background: #fde68a } .s2 { background: #f5d0fe } .s3 { background: #a5f3fc }
.s4 { background: #fecaca } .s5 { background: #bfdbfe }
.masked { background: #bbf7d0 } .random, .replaced { background: #fecaca } .kept { background: #fde68a }
.second { border-bottom: 2px solid #60a5fa }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd }
  .s0, .s1, .s2, .s3, .s4, .s5, .masked, .random, .replaced, .kept { color: #111 } }
"""


def to_html(inspection: Inspection, title: str, rows: int) -> str:
    """The same as one page, without scripts or outside files; all text is escaped."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for row in inspection.rows[:rows]:
        body.append(f"<h2>{html.escape(_row_title(inspection, row.number))}</h2>")
        for name in _names(row):
            texts = "<span class=border> ┃</span>".join(
                "".join(map(_span, example.texts[name])) for example in row.examples
            )
            body.append(f'<p class="text"><span class="name">{html.escape(name)}</span>{texts}</p>')
    cells = (f"<tr><td>{html.escape(n)}</td><td>{html.escape(v)}</td></tr>" for n, v in facts(inspection))
    body.append(f"<h2>The whole batch</h2><table>{''.join(cells)}</table>")
    for stream in inspection.streams:
        if stream.rows:
            bars = html.escape("\n".join(histogram(stream.span_lengths)))
            body.append(f"<h2>{html.escape(_stream_title(stream))}</h2><pre>{bars}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _span(piece: Piece) -> str:
    names = [name for name, on in (("special", piece.special), ("dim", not piece.counts)) if on]
    if piece.span is not None:
        names.append(f"s{piece.span % len(COLOURS)}")
    if piece.fate is not None:
        names.append(piece.fate)
    if piece.segment:
        names.append("second")
    text = html.escape(_marked(piece))
    return f'<span class="{" ".join(names)}">{text}</span>' if names else text


# ---- both ---------------------------------------------------------------------------------------


def _names(row: Row) -> list[str]:
    """The texts that a row has."""
    return list(dict.fromkeys(name for example in row.examples for name in example.texts))


def _marked(piece: Piece) -> str:
    mark = MARKS.get(piece.fate or "", "")
    space = " " * piece.text.startswith(" ")
    return f"{space}{mark}{piece.text[len(space) :]}" if mark else piece.text


def facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    """Figures of the whole batch as (name, value) lines."""
    rows = len(inspection.rows)
    yield "rows", f"{rows}, with {inspection.examples} examples ({inspection.examples / rows:.2f} a row)"
    for name, slots in inspection.slots.items():
        yield name, f"{slots} slots a row, {inspection.padding[name]:.1%} padding"
    yield "loss", f"{inspection.loss_tokens} target tokens count"
    kept = inspection.restorable
    lost = inspection.examples - kept
    way_back = f"{inspection.restored} of {kept} examples: inputs and targets rebuild the source text"
    yield "round trip", way_back + (f"; {lost} cannot, by their objective" if lost else "")
    if any(stream.shares for stream in inspection.streams):
        yield "marks", LEGEND
    yield "data", f"fingerprint {inspection.fingerprint}"


def _row_title(inspection: Inspection, number: int) -> str:
    row = inspection.rows[number]
    if row.stream is None:
        return f"row {number}: empty, behind the end of the split"
    several = f"{len(row.examples)} examples, " if len(row.examples) > 1 else ""
    source = sum(e.source_tokens for e in row.examples)
    tokens = ", ".join(
        f"{sum(e.tokens[name] for e in row.examples)} of {slots} {name}"
        for name, slots in inspection.slots.items()
    )
    states = {e.restored for e in row.examples}
    rebuilt = (
        "; does not rebuild its source"
        if False in states
        else "; rebuilds its source"
        if True in states
        else ""
    )
    notes = "".join(f"; {note}" for e in row.examples for note in e.notes)
    name = inspection.streams[row.stream].name
    return f"row {number}: {several}{source} tokens of {name} -> {tokens}{rebuilt}{notes}"


def _stream_title(stream: Stream) -> str:
    words = [f"{stream.name}: {stream.summary}", f"rate {stream.rate:.1%}, {stream.rows} rows here"]
    configured = "" if stream.configured_hidden is None else f" (configured {stream.configured_hidden:.1%})"
    words.append(f"hidden {stream.hidden:.1%} of the source tokens{configured}")
    if stream.mean_span is not None:
        configured = "" if stream.configured_span is None else f" (configured {stream.configured_span:g})"
        words.append(f"spans of {stream.mean_span:.2f} tokens on average{configured}")
    for name, share in stream.shares.items():
        wanted = stream.configured_shares.get(name)
        words.append(
            f"{share:.1%} {name.replace('_', ' ')}"
            + ("" if wanted is None else f" (configured {wanted:.1%})")
        )
    return "; ".join(words)


def histogram(counts: dict[int, int], width: int = 40, most: int = 16) -> list[str]:
    """Bars of span length -> how often, at most `most` lines; longer spans are added up in the last."""
    lengths = sorted(counts)
    lines = [(str(n), counts[n]) for n in lengths[:most]]
    if len(lengths) > most:
        lines[-1] = (f"{lengths[most - 1]}+", sum(counts[n] for n in lengths[most - 1 :]))
    peak = max((count for _, count in lines), default=1)
    return [f"{name:>5} {'█' * -(-count * width // peak)} {count}" for name, count in lines]
