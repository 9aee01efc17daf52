"""The first screen of a training run: what is about to happen, in at most 25 lines."""

from __future__ import annotations

import textwrap

import jax

from t5x_like.data.batches import Batches
from t5x_like.training.meter import step_flops, token_features
from t5x_like.training.progress import quantity
from t5x_like.training.run import Run
from t5x_like.training.run_dir import RunDir

WIDTH = 110


def first_screen(run: Run, batches: Batches, mesh: jax.sharding.Mesh, directory: RunDir, start: int) -> str:
    """At most 20 lines; what the run starts from is told below them."""
    features = batches.features
    slots = run.batch_size * sum(features[name].shape[0] for name in token_features(features))
    tokens = sum(
        split.num_tokens for split in {id(s.windows.split): s.windows.split for s in batches.streams}.values()
    )
    kinds = {device.device_kind for device in mesh.devices.flat}
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    flops = step_flops(run.model, features, run.batch_size)
    epochs = run.steps * run.batch_size / batches.examples_per_epoch
    sources = ", ".join(source.path for source in run.data.sources)
    schedule = _call(run.schedule)
    lines = [
        ("run", f"{run.name}, seed {run.seed}, in {directory.path}"),
        ("model", f"{type(run.model).__name__}, {run.model.num_params():,} parameters, {run.model.dtype}"),
        ("objective", getattr(run.objective, "summary", type(run.objective).__name__)),
        ("data", f"{quantity(tokens)} tokens, fingerprint {batches.fingerprint[:12]}, {sources}"),
        (
            "batch",
            f"{run.batch_size} examples, {quantity(slots)} token slots"
            + (f", in {run.microbatches} microbatches" if run.microbatches > 1 else "")
            + (", packed" if run.data.pack else ""),
        ),
        ("mesh", f"{axes}; {mesh.devices.size} x {', '.join(sorted(kinds))}"),
        ("optimizer", f"{_call(run.optimizer)}, {schedule}"),
        ("steps", f"{run.steps:,} = {epochs:.3g} epochs, {quantity(flops)} model FLOPs each"),
    ]
    if start < run.steps:
        lines += _examples(batches, start)
    return "\n".join(
        f"{label:<10} {textwrap.shorten(text, WIDTH - 11, placeholder=' ...')}" for label, text in lines
    )


def _call(part: object) -> str:
    """A dataclass with what it does not leave at its defaults: `Rsqrt(warmup=1000)`."""
    from t5x_like import typed

    return (
        f"{type(part).__name__}({', '.join(f'{path}={value}' for path, value in typed.non_defaults(part))})"
    )


def _examples(batches: Batches, step: int) -> list[tuple[str, str]]:
    """The first row of the batch of `step`, as text without anything that a terminal would obey."""
    batch = batches(step, slice(0, 1))
    shown = []
    for name in token_features(batches.features):
        text = batches.tokenizer.decode(batch[name][0].tolist())
        label = {"encoder_input_tokens": "inputs", "decoder_target_tokens": "targets"}.get(name, name)
        shown.append((label, "".join(c if c.isprintable() else " " for c in text)))
    return shown
