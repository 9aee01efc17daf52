"""The first screen of a training run: what is about to happen, in at most 25 lines."""

from __future__ import annotations

import textwrap

from jax.sharding import Mesh

from t5x_like.data.batches import Batches
from t5x_like.training.meter import token_features, token_slots
from t5x_like.training.partitioning import check_lengths
from t5x_like.training.progress import quantity
from t5x_like.training.run import Run
from t5x_like.training.run_dir import RunDir
from t5x_like.training.setup import Setup, Stage

WIDTH = 110


def first_screen(run: Run, setup: Setup, directory: RunDir) -> str:
    """At most 20 lines; what the run starts from is told below them."""
    first, mesh = setup.stages[0], setup.mesh
    by_source = first.batches.streams[:: len(first.run.objective.parts())]
    tokens = {
        (source.path, name := source.split or run.data.train_split): stream.dataset.split(name).num_tokens
        for source, stream in zip(run.data.sources, by_source, strict=True)
    }
    kinds = {device.device_kind for device in mesh.devices.flat}
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    epochs = sum(
        (stage.stop - stage.start) * stage.run.batch_size / stage.batches.examples_per_epoch
        for stage in setup.stages
    )
    sources = ", ".join(source.path for source in run.data.sources)
    lines = [
        ("run", f"{run.name}, seed {run.seed}, in {directory.path}"),
        ("model", f"{type(run.model).__name__}, {run.model.num_params():,} parameters, {run.model.dtype}"),
        ("objective", first.run.objective.summary),
        (
            "data",
            f"{quantity(sum(tokens.values()))} tokens, fingerprint {first.batches.fingerprint[:12]}, {sources}",
        ),
        ("batch", _batch(first)),
        ("mesh", f"{axes}; {mesh.devices.size} x {', '.join(sorted(kinds))}{_lying(run, first, mesh)}"),
        ("optimizer", f"{_call(run.optimizer)}, {_call(run.schedule)}"),
        ("steps", f"{run.steps:,} = {epochs:.3g} epochs, {quantity(first.flops)} model FLOPs each"),
    ]
    for stage in setup.stages[1:4]:
        told = f"{stage.run.objective.summary}; {_batch(stage)}, {quantity(stage.flops)} FLOPs a step"
        lines.append(("then", f"from step {stage.start:,}: {told}"))
    if len(setup.stages) > 4:
        lines.append(("", f"and {len(setup.stages) - 4} phases more"))
    if setup.start < run.steps:
        lines += _examples(setup.ahead[0].batches, setup.start)
    return "\n".join(
        f"{label:<10} {textwrap.shorten(text, WIDTH - 11, placeholder=' ...')}" for label, text in lines
    )


def _lying(run: Run, stage: Stage, mesh: Mesh) -> str:
    """How the run lies on its mesh, apart from the sizes of the axes."""
    processes = len({device.process_index for device in mesh.devices.flat})
    told = [f"{processes} processes"] if processes > 1 else []
    told += [f"{run.mesh.slices} slices"] if (run.mesh.slices or 1) > 1 else []
    told += [run.mesh.partitioner] if run.mesh.partitioner != "jit" else []
    whole = check_lengths(stage.batches.features, mesh)
    told += [f"{', '.join(whole)} whole along sequence"] if whole else []
    return "".join(f"; {text}" for text in [*told, "parameters.txt"])


def _batch(stage: Stage) -> str:
    features, run = stage.batches.features, stage.run
    slots = token_slots(features, run.batch_size)
    parts = f", in {run.microbatches} microbatches" if run.microbatches > 1 else ""
    return f"{run.batch_size} examples, {quantity(slots)} token slots{parts}" + (
        ", packed" if run.data.pack else ""
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
