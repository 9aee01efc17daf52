"""The report of a run: one self-contained HTML page; every text that comes from data is escaped."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5x_like import reporting_samples
from t5x_like.errors import Exit, UserError
from t5x_like.training import goodput
from t5x_like.training.progress import duration
from t5x_like.training.run_dir import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem } .quiet { color: #666 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .35rem .75rem .35rem 0;
  border-bottom: 1px solid #ddd; vertical-align: top }
  td.number { text-align: right; font-variant-numeric: tabular-nums }
mark { background: #fde68a; padding: 0 .15em } mark.wrong { background: #fecaca } svg { width: 100%; height: auto }
.wide { overflow-x: auto } iframe { width: 100%; height: 24rem; border: 1px solid #ddd }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 13px }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd } pre { background: #22252b }
  td, th { border-color: #333 } mark { background: #7c5e10; color: #fff }
  mark.wrong { background: #8b2c2c } svg { background: #fff } }
"""


_PANELS = (
    ("nats per pair", ("pair_loss",)),
    ("share of pairs", ("pair_accuracy",)),
    ("nats per token", ("detection", "discriminator_cross_entropy")),
    ("share", ("detection_precision", "detection_recall", "replaced")),
)
"""What is drawn beside the loss over the vocabulary, where a run has it: axis, metrics."""

_SHARES = {
    "accuracy": "validation accuracy",
    "pair_accuracy": "pairs told right",
    "detection_accuracy": "tokens judged right",
    "detection_precision": "of the alarms, replaced tokens",
    "detection_recall": "of the replaced tokens, found",
    "replaced": "replaced among all tokens",
}


def headline(figures: dict[str, Any]) -> str:
    """One line of what a run came to (`write`)."""
    loss, unigram = figures["loss"], figures["unigram_entropy"]
    if loss is None:
        return "not evaluated yet"
    line = f"validation loss {loss:.3f} nats per target token"
    if unigram is not None:
        line += f"; unigram entropy of the same targets {unigram:.3f}: {figures['gain']:.3f} nats better"
    if "detection_recall" in figures:
        line += f"\nof the tokens that its generator replaced {figures['detection_recall']:.1%} found"
        right = figures.get("detection_precision")  # missing where there were no alarms
        line += "" if right is None else f", {right:.1%} of the alarms right"
    if figures.get("swapped"):
        line += (
            f"; of {figures['swapped']} swapped words {figures['found']} are among the most suspected "
            f"({figures['chance']:.1f} by chance)"
        )
    return line


def read_metrics(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """`train` and `eval` records of metrics.jsonl in order of their steps; a step written twice (the run was
    killed and continued) counts once, with its last values. A torn last line is passed over."""
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"no metrics in {workdir}", where=str(path), help="is this a run directory?")
    kinds: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "eval": {}}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            kind, step = str(record["kind"]), int(record["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        if kind in kinds:
            kinds[kind][step] = _numbers(record) | {"step": step}
    return {kind: [records[step] for step in sorted(records)] for kind, records in kinds.items()}


def curves(metrics: dict[str, list[dict[str, Any]]], unigram: float | None) -> Figure:
    """Over steps: the loss over the vocabulary, what else the objective measures, and tokens a second."""
    from matplotlib.figure import Figure

    train, evaluation = metrics["train"], metrics["eval"]
    panels = [
        (title, names)
        for title, names in _PANELS
        if any(name in record for name in names for record in (*train, *evaluation))
    ]
    figure = Figure(figsize=(9, 6.2 + 2 * len(panels)), layout="constrained")
    axes = figure.subplots(2 + len(panels), 1, sharex=True, height_ratios=(2, *([1] * len(panels)), 1))
    loss, *middle, speed = axes
    loss.plot(
        [r["step"] for r in train], [_nats(r) for r in train], color="#94a3b8", lw=1, label="training loss"
    )
    loss.plot(
        [r["step"] for r in evaluation],
        [_nats(r) for r in evaluation],
        "o-",
        color="#2563eb",
        ms=4,
        label="validation loss (held-out documents)",
    )
    if unigram is not None:
        loss.axhline(
            unigram, color="#dc2626", ls="--", lw=1, label=f"unigram entropy of the targets, {unigram:.2f}"
        )
    losses = [*map(_nats, evaluation), *map(_nats, train[len(train) // 50 :])]
    top = max([unigram or 0.0, *(loss for loss in losses if math.isfinite(loss))])
    loss.set_ylim(bottom=0, top=top * 1.08 if top else 1)
    loss.set_ylabel("nats per target token")
    loss.legend(frameon=False)
    for panel, (title, names) in zip(middle, panels, strict=True):
        for name, colour in zip(names, ("#2563eb", "#059669", "#d97706"), strict=False):
            _line(panel, train, name, color=colour, lw=1, alpha=0.35)
            _line(panel, evaluation, name, "o-", color=colour, ms=4, label=name.replace("_", " "))
        panel.set_ylabel(title)
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False)
    _line(speed, train, "tokens_per_second", color="#059669", lw=1)
    speed.set_ylabel("tokens per second")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("step")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _line(axes: Any, records: list[dict[str, Any]], name: str, *style: str, **settings: Any) -> None:
    """A metric over steps, where it was measured."""
    points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    axes.plot([x for x, _ in points], [y for _, y in points], *style, **settings)


def _nats(record: dict[str, Any]) -> float:
    """Cross-entropy of a record; `loss` also holds the z-loss. NaN where every update was skipped."""
    return record.get("cross_entropy", record.get("loss", math.nan))


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    """The entries that are finite numbers; what was not finite was written as null."""
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
    }


def svg(figure: Figure) -> str:
    """The figure as an element of an HTML page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def document(title: str, body: str, head: str = "") -> str:
    """A whole page in the style of all reports; `title` is plain text, `body` and what is added to `head` are HTML."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>{head}<body>{body}</body></html>\n"
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(k)}</td><td class=number>{html.escape(v)}</td></tr>" for k, v in rows
    )
    return f"<table>{cells}</table>"


def _times(account: goodput.Account) -> str:
    """Where the wall time of the run went."""
    rows = [
        (f"{kind.replace('_', ' ')}: {what}", f"{duration(seconds)}, {seconds / account.wall:.1%}")
        for kind, what in goodput.KINDS.items()
        if (seconds := account.seconds[kind]) or kind == "lost"
    ]
    title = (
        f"Where the time went: {duration(account.wall)}, {account.goodput:.1%} of it into steps that count"
    )
    return f"<h2>{title}</h2>{_table(rows)}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"cannot read {path.name}: {e}", where=str(path), code=Exit.BAD_DATA) from None
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is no JSON object", where=str(path), code=Exit.BAD_DATA)
    return value


def write(workdir: Path, output: Path, png: Path | None = None) -> dict[str, Any]:
    """Writes the page; returns the headline figures: `loss`, `unigram_entropy`, `gain`, `steps`, of a discriminator
    also `detection_precision` and `detection_recall`, and what it did with swapped words."""
    from t5x_like import config

    run = config.load(str(workdir))
    metrics = read_metrics(workdir)
    evaluation = _numbers(_read_json(workdir / "evaluation.json"))
    environment = _read_json(workdir / "env.json")
    samples = reporting_samples.read(workdir / "samples.jsonl")

    measured = evaluation or (metrics["eval"][-1] if metrics["eval"] else None)
    loss = _nats(measured) if measured else math.nan
    loss = loss if math.isfinite(loss) else None
    unigram = evaluation.get("unigram_entropy")
    last = metrics["train"][-1] if metrics["train"] else {}
    rates = sorted(r["tokens_per_second"] for r in metrics["train"] if r.get("tokens_per_second"))
    figures: dict[str, Any] = {
        "loss": loss,
        "unigram_entropy": unigram,
        "steps": last.get("step"),
        "gain": None if loss is None or unigram is None else unigram - loss,
    }
    found = reporting_samples.detections(samples)
    figures |= found if found["swapped"] else {}
    figures |= {k: v for k, v in (measured or {}).items() if k in ("detection_precision", "detection_recall")}
    rows = [
        ("parameters", f"{run.model.num_params():,}"),
        ("steps", f"{last.get('step', 0):,} of {run.steps:,}"),
    ]
    if "tokens_seen" in last:
        rows.append(("tokens seen (inputs and targets)", f"{last['tokens_seen']:,}"))
    if rates:
        rows.append(("tokens per second, median", f"{rates[len(rates) // 2]:,.0f}"))
    if loss is not None:
        rows.append(("validation loss, nats per target token", f"{loss:.3f}"))
    if unigram is not None and loss is not None:
        rows += [
            ("unigram entropy of the same targets", f"{unigram:.3f}"),
            ("better than unigram by", f"{unigram - loss:.3f} nats"),
        ]
    rows += [(title, f"{evaluation[name]:.1%}") for name, title in _SHARES.items() if name in evaluation]

    figure = curves(metrics, unigram)
    parts = [
        f"<h1>{html.escape(run.name)}</h1><p class=quiet>{html.escape(str(workdir))}</p>",
        _table(rows),
        "<h2>Learning</h2>",
        svg(figure),
        reporting_samples.section(samples),
    ]
    times = goodput.account(RunDir(workdir).events())
    if times.wall:
        parts.append(_times(times))
    parts += [
        "<h2>Configuration</h2><p class=quiet>what differs from the defaults</p>",
        f"<pre>{html.escape(config.describe(run))}</pre>",
    ]
    if environment:
        parts.append(f"<h2>Environment</h2><pre>{html.escape(json.dumps(environment, indent=2))}</pre>")
    page = document(run.name, "".join(parts))
    try:
        output.write_text(page, encoding="utf-8")
        if png is not None:
            figure.savefig(png, dpi=110)
    except OSError as e:
        raise UserError(f"cannot write the report: {e}", where=str(output), code=Exit.CANNOT_WRITE) from None
    return figures
