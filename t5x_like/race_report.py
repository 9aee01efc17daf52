"""The report of a race: one self-contained HTML page drawn from `racing.collect`'s plain data."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from t5x_like import reporting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626", "#0891b2", "#a16207", "#64748b")
METHODS = {"finetune": "fine-tuned", "probe": "linear probe"}

Band = tuple[list[float], list[float], list[float], list[float]]
"""Places on the axis, and the median, least and largest value at each."""


def band(results: Iterable[dict[str, Any]], axis: str) -> Band:
    """Median and range over all seeds (of pretraining and of the judgement) at each point of `axis`."""
    values: dict[float, list[float]] = {}
    for result in results:
        if result["value"] is not None:
            values.setdefault(result[axis], []).append(result["value"])
    places = sorted(values)
    return (
        places,
        [statistics.median(values[p]) for p in places],
        [min(values[p]) for p in places],
        [max(values[p]) for p in places],
    )


def chosen(data: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    """The results whose fields have these values."""
    return [r for r in data["results"] if all(r[k] == v for k, v in wanted.items())]


def learning_curves(data: dict[str, Any], methods: Sequence[str], axis: str) -> Figure | None:
    """A panel for each task and method: the metric over FLOPs or tokens, a line a contestant, its range over seeds
    behind it. None where nothing was judged so."""
    from matplotlib.figure import Figure

    shown = [(t, m) for m in methods for t in data["tasks"] if chosen(data, task=t, method=m)]
    if not shown:
        return None
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, (task, method) in zip(panels, shown, strict=False):
        for name, colour in zip(data["contestants"], COLOURS * 9, strict=False):
            found = chosen(data, task=task, method=method, contestant=name)
            if found:
                _draw(panel, band(found, axis), name, colour)
        metric = chosen(data, task=task, method=method)[0]["metric"]
        panel.set_title(task if len(methods) == 1 else f"{task}, {METHODS[method]}", loc="left", fontsize=11)
        panel.set_ylabel(metric)
        panel.set_xlabel({"flops": "training FLOPs", "tokens": "tokens of training"}[axis])
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(figure.axes)[len(shown) :]:
        panel.set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def _draw(panel: Axes, line: Band, name: str, colour: str) -> None:
    places, middle, low, high = line
    panel.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
    panel.plot(places, middle, "o-", color=colour, ms=4, lw=1.6, label=name)


def pretraining_curves(data: dict[str, Any]) -> Figure:
    """The loss that each contestant minimises, on held-out text, over FLOPs. Losses of different objectives do not
    compare; they show that each was still learning."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, max(len(data["contestants"]), 1), squeeze=False).flat
    for panel, name, colour in zip(panels, data["contestants"], COLOURS * 9, strict=False):
        for kind, style in (
            ("train", {"lw": 0.8, "alpha": 0.5}),
            ("eval", {"marker": "o", "ms": 4, "lw": 1.4}),
        ):
            found = [c for c in data["curves"] if c["contestant"] == name and c["kind"] == kind]
            for seed in sorted({c["pretraining_seed"] for c in found}):
                points = sorted((c["flops"], c["loss"]) for c in found if c["pretraining_seed"] == seed)
                panel.plot(*zip(*points, strict=True), color=colour, **style)  # type: ignore[arg-type]
        panel.set_title(name, loc="left", fontsize=11)
        panel.set_xlabel("training FLOPs")
        panel.set_ylabel("loss that is minimised")
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def summary(data: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of text: for each task and method, the value of each contestant at the last point: median [least to
    largest], n. Of data that are `comparable`, that is a point which all have reached."""
    names = list(data["contestants"])
    rows: list[tuple[str, ...]] = [("task", "judged by", "metric", "point", *names)]
    for task in data["tasks"]:
        for method in METHODS:
            found = chosen(data, task=task, method=method)
            if not found:
                continue
            last, cells = max(r["point"] for r in found), []
            for name in names:
                cells.append(
                    spread([r["value"] for r in found if (r["contestant"], r["point"]) == (name, last)])
                )
            rows.append((task, METHODS[method], found[0]["metric"], f"{last} of {data['points']}", *cells))
    return rows


def spread(values: Sequence[float | None]) -> str:
    """`0.752 [0.748 to 0.761] n=3`; a seed whose metric is no number is told of, not counted."""
    numbers = [value for value in values if value is not None]
    lost = f", {len(values) - len(numbers)} diverged" if len(numbers) < len(values) else ""
    if not numbers:
        return "-" + lost
    return (
        f"{statistics.median(numbers):.3f} [{min(numbers):.3f} to {max(numbers):.3f}] n={len(numbers)}{lost}"
    )


def comparable(data: dict[str, Any]) -> dict[str, Any]:
    """Without the points that not every contestant has been judged at: the rest of an unfinished race would compare
    unequal compute."""
    kept = []
    for task in data["tasks"]:
        for method in METHODS:
            found = chosen(data, task=task, method=method)
            reached = [
                max((r["point"] for r in found if r["contestant"] == name), default=-1)
                for name in data["contestants"]
            ]
            kept += [r for r in found if r["point"] <= min(reached)]
    return {**data, "results": kept}


def share_of_compute(data: dict[str, Any], slow: str, fast: str, task: str, method: str) -> float | None:
    """The share of its FLOPs after which the median of `fast` is, linearly between points, what that of `slow` is at
    the end; None where it never is."""
    goal = band(chosen(data, task=task, method=method, contestant=slow), "flops")
    line = band(chosen(data, task=task, method=method, contestant=fast), "flops")
    if not goal[0] or not line[0]:
        return None
    wanted, end = goal[1][-1], line[0][-1]
    before: tuple[float, float] | None = None
    for place, value in zip(line[0], line[1], strict=True):
        if value >= wanted:
            if before is None or value == before[1]:
                return place / end
            return (before[0] + (place - before[0]) * (wanted - before[1]) / (value - before[1])) / end
        before = (place, value)
    return None


def page(data: dict[str, Any], samples: dict[str, str], reading: str | None = None) -> str:
    """The whole page.

    Args:
      data: as `racing.collect` returns it.
      samples: contestant -> HTML of what its objective shows the model.
      reading: paragraphs in words, put in front; plain text.
    """
    data = comparable(data)
    parts = [f"<h1>{html.escape(data['name'])}</h1>", f"<p class=quiet>{html.escape(_rules(data))}</p>"]
    if reading:
        parts += [f"<p>{html.escape(p)}</p>" for p in reading.strip().split("\n\n")]
    parts += ["<h2>At the last point that all have reached</h2>", _table(summary(data))]
    parts += ["<h2>Shares of compute</h2>", _shares(data)]
    for method, label in METHODS.items():
        for axis in ("flops", "tokens"):
            figure = learning_curves(data, [method], axis)
            if figure is not None:
                word = {"flops": "training FLOPs", "tokens": "tokens"}[axis]
                parts += [f"<h2>{label.capitalize()}, against {word}</h2>", reporting.svg(figure)]
    parts += [
        f"<p class=quiet>Lines are medians, bands run from the least to the largest value over all seeds: those of the "
        f"judgements, and {_seeds(data)}. The first point is the untrained model.</p>",
        "<h2>Pretraining</h2>",
        reporting.svg(pretraining_curves(data)),
        "<p class=quiet>Each contestant's own loss: these do not compare with each other.</p>",
        "<h2>What was spent</h2>",
        _table(_spent(data)),
    ]
    for name, shown in samples.items():
        parts.append(f"<h2>What {html.escape(name)} is shown</h2>{shown}")
    parts.append("<h2>Configurations</h2>")
    for name, contestant in data["contestants"].items():
        parts.append(f"<h3>{html.escape(name)}</h3><pre>{html.escape(contestant['config'])}</pre>")
        if contestant["differs"]:
            first = next(iter(data["contestants"]))
            parts.append(
                f"<p class=quiet>against {html.escape(first)}</p><pre>{html.escape(contestant['differs'])}</pre>"
            )
    return reporting.document(data["name"], "".join(parts))


def _seeds(data: dict[str, Any]) -> str:
    """How many times each contestant was pretrained."""
    count = len({r["pretraining_seed"] for r in data["results"]})
    return "one pretraining each" if count <= 1 else f"{count} pretrainings each"


def _rules(data: dict[str, Any]) -> str:
    what = {
        "formula": "FLOPs of matrix products, by formula",
        "compiled": "FLOPs of the compiled train step",
        "seconds": "seconds of train steps",
    }[data["count"]]
    return (
        f"Budget: {data['budget']:.3g} {what}, for each contestant and pretraining seed; judged at {data['points']} "
        "points and before training."
    )


def _spent(data: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            "contestant",
            "objective",
            "parameters",
            "fine-tuned",
            "steps",
            "tokens",
            "FLOPs, formula",
            "FLOPs, compiled",
        )
    ]
    for name, c in data["contestants"].items():
        rows.append((
            name, c["objective"], f"{c['parameters']:,}", f"{c['encoder_parameters']:,}", f"{c['steps']:,}",
            f"{c['steps'] * c['tokens']:,}", f"{c['steps'] * c['formula_flops']:.3e}",
            f"{c['steps'] * c['compiled_flops']:.3e}",
        ))  # fmt: skip
    return rows


def _shares(data: dict[str, Any]) -> str:
    """For each pair: the share of compute after which one has what the other has at the end."""
    names = list(data["contestants"])
    rows: list[tuple[str, ...]] = [
        ("task", "judged by", *(f"{a} reaches the end of {b} at" for a, b in _pairs(names)))
    ]
    for task in data["tasks"]:
        for method in METHODS:
            if not chosen(data, task=task, method=method):
                continue
            cells = []
            for fast, slow in _pairs(names):
                share = share_of_compute(data, slow, fast, task, method)
                cells.append("never" if share is None else f"{share:.0%}")
            rows.append((task, METHODS[method], *cells))
    return _table(rows)


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every contestant against the first, both ways."""
    return [pair for other in names[1:] for pair in ((other, names[0]), (names[0], other))]


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"
