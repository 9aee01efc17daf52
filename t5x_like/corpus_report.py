"""The report of a corpus: one self-contained HTML page, and the same figures as JSON.

Everything that comes from pages is stripped of control characters (`corpus_samples.visible`) and escaped; the page runs
no scripts and loads nothing.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from t5x_like import corpus_samples, reporting
from t5x_like.corpus_samples import Group, visible
from t5x_like.data.corpus.summary import Summary
from t5x_like.data.documents import BESIDE_PAGES
from t5x_like.errors import Exit, UserError

_HEAD = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><style>"
    ".bar { background: #93c5fd; height: .9rem; min-width: 1px } .lost { color: #b45309 }"
    "td.wide { width: 60%; min-width: 5rem } td.number, td.name, th { white-space: nowrap }"
    "th.number { text-align: right } "
    "h1, p { overflow-wrap: anywhere } td.file { min-width: 12rem; overflow-wrap: anywhere }"
    "h3 { margin: 1.6rem 0 .2rem } details { margin: .3rem 0 } summary { cursor: pointer }"
    ".sample { border-left: 3px solid #ccc; padding-left: .8rem; margin: .8rem 0 1.2rem }"
    ".sample p { margin: .15rem 0; overflow-wrap: anywhere } .sample .quiet { font-size: 13px }"
    "p.removed { background: #fee2e2; text-decoration: line-through } p.new { background: #dcfce7 }"
    "@media (prefers-color-scheme: dark) { .bar { background: #1d4ed8 } p.removed { background: #5b1f1f }"
    " p.new { background: #14432a } .lost { color: #f59e0b } }"
    "</style>"
)
_SAMPLES = 5
"""Samples of each kind on the page."""
_LISTED = 50
"""Problems of the input that the page lists one by one."""
_LANGUAGES = 30


def figures(summary: Summary) -> dict[str, Any]:
    """What the page says in figures, as plain data: corpus.json, and the speed of each step."""
    funnel, times = summary.data["funnel"], summary.seconds["steps"]
    measured = [(row["step"], row["in"], times.get(row["step"], 0)) for row in funnel]
    if counting := summary.seconds.get("counting_tokens"):
        measured.append(("tokens", counting, counting["seconds"]))
    return {
        "path": summary.path,
        "documents": summary.documents,
        "read": funnel[0]["in"]["documents"],
        "corpus": summary.data,
        "seconds": summary.seconds,
        "speed": [_speed(name, given, seconds) for name, given, seconds in measured if seconds],
    }


def _speed(name: str, given: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Of one core: documents and megabytes (millions of characters) that the step was given, in a second of it."""
    return {
        "step": name,
        "seconds": seconds,
        "documents_per_second": given["documents"] / seconds,
        "mb_per_second": given["characters"] / seconds / 1e6,
    }


def write(folder: Path, output: Path) -> dict[str, Any]:
    """Writes the page to `output` and the figures beside it, with `.json` for its suffix; returns the figures.

    Raises:
      UserError: the folder is no corpus, or the page cannot be written.
    """
    summary = Summary.open(folder)
    found = figures(summary)
    groups = corpus_samples.groups(corpus_samples.read(folder), _SAMPLES)
    problems = _faults(folder / "rejections.jsonl", _LISTED)
    try:
        output.write_text(page(found, groups, problems), encoding="utf-8")
        data = json.dumps(found, indent=1, ensure_ascii=False)
        output.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the report: {error}", where=str(output), code=Exit.CANNOT_WRITE
        ) from None
    return found


def samples_page(title: str, groups: Sequence[Group]) -> str:
    """A page of nothing but samples (`inspect --corpus --html`)."""
    return reporting.document(visible(title), f"<h1>{_text(title)}</h1>{_samples(groups)}", head=_HEAD)


def page(found: dict[str, Any], groups: Sequence[Group], problems: Sequence[dict[str, Any]]) -> str:
    """The whole page.

    Args:
      found: what `figures` returned.
      groups: samples.
      problems: of rejections.jsonl, those to be listed.
    """
    data = found["corpus"]
    parts = [
        f"<h1>{_text(data['dataset'])}</h1>",
        f"<p class=quiet>{_text(found['path'])}, by the recipe {_text(data['rules'])}</p>",
        _headline(found),
        "<h2>The funnel</h2>",
        _funnel(data),
        "<h2>Lengths</h2><p class=quiet>Documents of the result by their characters.</p>",
        _bars(
            [
                (_length(int(bits)), count)
                for bits, count in sorted(data["lengths"].items(), key=lambda x: int(x[0]))
            ]
        ),
        "<h2>Languages</h2>",
        _bars(_most(data["languages"], _LANGUAGES)),
        "<h2>Near-duplicates</h2>",
        _clusters(data, [group for group in groups if group.kind == "cluster"]),
        "<h2>Input that could not be read</h2>",
        _problems(data["problems"], problems),
        "<h2>Speed</h2>",
        _speeds(found),
        "<h2>Samples</h2>",
        _samples([group for group in groups if group.kind != "cluster"]),
        "<h2>The recipe</h2><p class=quiet>recipe.json of the corpus; --config takes it again.</p>",
        f"<pre>{_text(json.dumps(data['arguments']['recipe'], indent=1, ensure_ascii=False))}</pre>",
    ]
    return reporting.document(visible(data["dataset"]), "".join(parts), head=_HEAD)


def _headline(found: dict[str, Any]) -> str:
    data = found["corpus"]
    rows = [
        (
            "documents",
            f"{found['documents']:,} of {found['read']:,} read ({_share(found['documents'], found['read'])})",
        ),
        ("files read", f"{data['input_files']:,}, {data['input_bytes'] / 1e6:,.1f} MB as stored"),
    ]
    for split, counts in data["splits"].items():
        tokens = f", {counts['tokens']:,} tokens" if "tokens" in counts else ""
        rows.append((split, f"{counts['documents']:,} documents, {counts['bytes'] / 1e6:,.1f} MB{tokens}"))
    return _table((), [[_text(name), _text(value)] for name, value in rows])


def _funnel(data: dict[str, Any]) -> str:
    """A row for each step: what it left, of what was read, and what it rejected for which reason."""
    tokens = data["tokens_per_character"] is not None
    rows, read = [], data["funnel"][0]["in"]["documents"]
    heads = [
        "step",
        "documents",
        "",
        "of all",
        "M characters",
        *(["tokens" if data.get("tokens_counted") else "tokens, about"] if tokens else []),
        "changed",
    ]
    characters = f"{data['funnel'][0]['in']['characters'] / 1e6:,.2f}"
    first = [_text("read"), f"{read:,}", _bar(read, read), _share(read, read), characters]
    rows.append([*first, *([""] * (1 + tokens))])
    for row in data["funnel"]:
        out = row["out"]
        cells = [_text(row["step"]), f"{out['documents']:,}", _bar(out["documents"], read)]
        cells += [_share(out["documents"], read), f"{out['characters'] / 1e6:,.2f}"]
        cells += [f"{out['tokens']:,}"] if tokens else []
        changes = row["changed"] and row is not data["funnel"][0]  # extraction is nothing but change
        rows.append([*cells, f"{row['changed']:,}" if changes else ""])
        for reason, count in sorted(row["rejected"].items(), key=lambda item: -item[1]):
            name = f"<span class=lost>{_text(reason.replace('_', ' '))}</span>"
            rows.append([f"&emsp;{name}", f"<span class=lost>−{count:,}</span>", *([""] * (4 + tokens))])
    estimated = " Tokens are estimates: the characters times the tokens that a character of the result has."
    note = (
        "<p class=quiet>A row has what a step left, which is what the next is given; a document is counted where it "
        "was rejected first. What was read is counted with its markup."
        + (estimated if tokens and not data.get("tokens_counted") else "")
        + "</p>"
    )
    return note + _table(heads, rows, numbers=(1, 3, 4, 5, 6))


def _clusters(data: dict[str, Any], groups: Sequence[Group]) -> str:
    counts = data["clusters"]
    steps = [row for row in data["funnel"] if row["step"].endswith(" near_duplicates")]
    if not counts["clusters"]:
        return "<p>None found.</p>" if steps else "<p>Not looked for: no step of the recipe does.</p>"
    kept = "one of each is kept" if any(row["rejected"] for row in steps) else "all are kept, and marked"
    sizes = sorted(counts["sizes"].items(), key=lambda item: int(item[0]))
    out = (
        f"<p>{counts['documents']:,} documents in {_count(counts['clusters'], 'cluster')}; {kept}.</p>"
        "<p class=quiet>Clusters of so many documents.</p>"
    )
    return (
        out + _bars([(f"of {int(size):,}", count) for size, count in sizes[:_LANGUAGES]]) + _samples(groups)
    )


def _problems(counts: dict[str, int], listed: Sequence[dict[str, Any]]) -> str:
    ranked = sorted(((key.split(), count) for key, count in counts.items()), key=lambda item: -item[1])
    faults: list[list[str]] = []
    beside: list[str] = []
    for (kind, action), count in ranked:
        name = kind.replace("_", " ")
        if kind in BESIDE_PAGES:
            beside.append(f"{count:,} × {name}")
        else:
            faults.append([_text(name), _text(action), f"{count:,}"])
    out = _table(("what", "what was done", "how often"), faults, numbers=(2,)) if faults else "<p>None.</p>"
    if beside:
        out += f"<p class=quiet>Beside pages the crawl holds {_text(', '.join(beside))}.</p>"
    if listed:
        lines = [
            [_text(p["kind"].replace("_", " ")), _text(p["file"]), f"{p['byte']:,}", _text(p["detail"][:200])]
            for p in listed
        ]
        table = _table(("what", "file", "byte", "seen"), lines, numbers=(2,), file=1)
        out += f"<details><summary>the first {len(listed)}, with file and byte</summary>{table}</details>"
    return out


def _speeds(found: dict[str, Any]) -> str:
    seconds = found["seconds"]
    rows = [
        [
            _text(row["step"]),
            f"{row['seconds']:,.2f}",
            f"{row['documents_per_second']:,.0f}",
            f"{row['mb_per_second']:,.1f}",
        ]
        for row in found["speed"]
    ]
    workers = seconds["workers"]
    note = (
        f"<p class=quiet>{seconds['wall']:,.1f} s in all by {workers} process{'es' * (workers > 1)}; "
        "per step the seconds of all of them, and what one does in a second. Steps that compare documents are timed "
        "without what they exchange on disk.</p>"
    )
    return note + _table(("step", "seconds", "documents/s", "MB/s"), rows, numbers=(1, 2, 3))


def _samples(groups: Sequence[Group]) -> str:
    out, kind = [], ""
    for group in groups:
        if group.kind != kind and group.kind != "cluster":
            out.append(f"<h3>{_text(group.kind)}</h3>")
        kind = group.kind
        shown = "".join(
            f"<div class=sample><p class=quiet>{_text(sample.title)}</p>"
            + "".join(f"<p class={fate}>{_text(line) or '&nbsp;'}</p>" for fate, line in sample.lines)
            + ("<p class=quiet>…</p>" if sample.more else "")
            + "</div>"
            for sample in group.samples
        )
        folded = f"<details><summary>{_text(group.title)}</summary>{shown}</details>"
        out.append(shown if kind == "kept" else folded)
    return "".join(out) or "<p>None.</p>"


# ---- small parts


def _text(value: Any) -> str:
    return html.escape(visible(value))


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + "s" * (number != 1)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _bar(part: int, whole: int) -> str:
    return f'<div class=bar style="width:{100 * part / max(whole, 1):.2f}%"></div>' if part else ""


def _bars(rows: Sequence[tuple[str, int]]) -> str:
    """Names, counts and bars; the longest bar is the largest count."""
    if not rows:
        return "<p>None.</p>"
    most, total = max(count for _, count in rows), sum(count for _, count in rows)
    cells = [[_text(name), f"{count:,}", _share(count, total), _bar(count, most)] for name, count in rows]
    return _table((), cells, numbers=(1, 2))


def _most(counts: dict[str, int], most: int) -> list[tuple[str, int]]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[most:])
    return ranked[:most] + ([(f"{len(ranked) - most} others", rest)] if rest else [])


def _length(bits: int) -> str:
    """Lengths of a number of binary digits."""
    return f"{1 << (bits - 1):,} to {(1 << bits) - 1:,}" if bits > 1 else str(bits)


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), file: int | None = None
) -> str:
    """Cells are HTML; columns of `numbers` stand to the right, those with bars are wide, names of a `file` may be
    broken anywhere, and the first column not at all."""

    def cell(tag: str, column: int, content: str) -> str:
        name = "number" if column in numbers else "wide" if "class=bar" in content else ""
        name = name or ("file" if column == file else "" if column else "name")
        return f"<{tag}{f' class={name}' * bool(name)}>{content}</{tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(cell(tag, column, each) for column, each in enumerate(cells)) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<div class=wide><table>{line('th', heads) if heads else ''}{body}</table></div>"


def _faults(path: Path, most: int) -> list[dict[str, Any]]:
    """The first problems of rejections.jsonl, without what belongs to a crawl."""
    try:
        with path.open(encoding="utf-8") as file:
            entries = (json.loads(line) for line in file)
            return list(itertools.islice((e for e in entries if e["kind"] not in BESIDE_PAGES), most))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path.name}: {error}", where=str(path), code=Exit.BAD_DATA) from None
