"""What a run starts from: its own newest checkpoint, the weights of another model, or nothing."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t5x_like import typed
from t5x_like.data import changes
from t5x_like.data.batches import Batches
from t5x_like.errors import Exit, UserError
from t5x_like.models import stack
from t5x_like.models.electra import Electra
from t5x_like.models.encoder import Encoder
from t5x_like.models.heads import EncoderWithHead
from t5x_like.training import restore, run_dir, state
from t5x_like.training.checkpoint_reader import paths
from t5x_like.training.checkpoints import Record, Store
from t5x_like.training.progress import duration
from t5x_like.training.run import Run, read_run, to_json
from t5x_like.training.run_dir import RunDir

CHANGEABLE = re.compile(
    r"name|steps|log_every|max_nonfinite_steps|recovery(\..*)?|evaluation(\..*)?|checkpoints(\..*)?|mesh(\..*)?"
    r"|data\.(workers|prefetch)|data\.sources\.\d+\.path"
)
"""What may differ when a run is resumed. A moved data set is the same by its fingerprint; another mesh sees the
same examples and the same arithmetic up to rounding. All else would make it another run."""


def agree(run: Run, directory: RunDir) -> list[str]:
    """Compares a run with the one that its directory was made for; returns the changes that are taken over.

    Raises:
      UserError: a field differs that decides what is trained; shows both values.
    """
    if not directory.config.is_file():
        return []
    earlier = read_run(directory.config)
    changes = typed.diff(earlier, run)
    steps_matter = run.schedule.over(run.steps) != run.schedule.over(earlier.steps)
    refused = [
        change
        for change in changes
        if not CHANGEABLE.fullmatch(change[0]) or (change[0] == "steps" and steps_matter)
    ]
    if refused:
        shown = [f"  {path}: {old} in the run, {new} now" for path, old, new in refused[:8]]
        more = [f"  and {len(refused) - 8} more"] if len(refused) > 8 else []
        note = ["  (the schedule depends on the number of steps)"] if refused[0][0] == "steps" else []
        raise UserError(
            "\n".join(["this directory holds a run with another configuration", *shown, *more, *note]),
            where=str(directory.config),
            help="--fresh moves that run aside and begins anew; or name another --workdir",
        )
    return [f"{path}: {old} -> {new}" for path, old, new in changes]


def own(record: Record | None, run: Run, directory: RunDir) -> Record | None:
    """The checkpoint to go on from, if it is one of this run's, as far as that can be known.

    Raises:
      UserError: there is no config.json to compare with, and the checkpoint was saved with another configuration.
    """
    if record is None or record.config == config_hash(to_json(run)):
        return record
    if not directory.config.is_file():
        raise UserError(
            f"config.json is missing, and checkpoint {record.step} was saved with another configuration than this",
            where=str(directory.path),
            help="put config.json back, give the configuration of then to the last value, or begin anew by --fresh",
            code=Exit.BAD_DATA,
        )
    begun = [event for event in directory.events() if event.get("event") in ("started", "resumed")]
    if begun and all("config" in event and event["config"] != record.config for event in begun):
        directory.say(
            f"warning: checkpoint {record.step} was saved with a configuration that this run has never had: was it "
            "copied from another run?"
        )
    return record


def config_hash(config_json: str) -> str:
    """Of a configuration, for the records of checkpoints."""
    return hashlib.sha256(config_json.encode()).hexdigest()[:32]


def check_data(record: Record, batches: Batches, directory: RunDir, *, allow: bool = False) -> list[str]:
    """Compares tokenizer and data with those of a checkpoint.

    Args:
      allow: other data are taken over, from this step on; another tokenizer never is.

    Returns:
      What has changed and is allowed, one line each.

    Raises:
      UserError: they are others; shows both fingerprints, and what changed as far as data.json tells.
    """
    told = changes.differences(directory.read_data(), changes.describe(batches))
    for name, saved, now in (
        ("tokenizer", record.tokenizer, batches.tokenizer_fingerprint),
        ("data", record.data, batches.fingerprint),
    ):
        if saved != now and not (allow and name == "data"):
            shown = "".join(f"\n  {line}" for line in told if name == "data")
            other = "; or --allow_data_change takes these over from here on" if name == "data" else ""
            raise UserError(
                f"the {name} is not that of checkpoint {record.step}: fingerprint {saved} in the "
                f"checkpoint, {now} now{shown}",
                where=str(directory.path),
                code=Exit.BAD_DATA,
                help="give the data the run was begun with; or begin another run from these weights: "
                f"--workdir=OTHER --set=init_from={directory.path}{other}",
            )
    if record.data == batches.fingerprint:
        return []
    return [f"data: fingerprint {record.data} -> {batches.fingerprint}", *(f"data: {line}" for line in told)]


def check_arithmetic(run: Run, mesh: jax.sharding.Mesh, directory: RunDir) -> None:
    """Raises `UserError` where going on would not give the losses of the run so far to the bit: on other devices, on
    another mesh or laid out otherwise over it, or by another version of JAX. Shows both."""
    try:
        environment = json.loads((directory.path / "env.json").read_text(encoding="utf-8"))
        versions = dict(environment["versions"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            "env.json cannot be read, which says where the run was", where=str(directory.path), code=Exit.BAD_DATA,
            help="without --strict the examples stay the same, and losses agree closely",
        ) from None  # fmt: skip
    earlier = read_run(directory.config).mesh
    now = run_dir.environment([str(device) for device in mesh.devices.flat], dict(mesh.shape))
    compared = [("mesh", environment.get("mesh"), now["mesh"])]
    compared += [("devices", environment.get("devices"), now["devices"])]
    compared += [
        (f"mesh.{name}", getattr(earlier, name), getattr(run.mesh, name))
        for name in ("partitioner", "rules", "overrides")
    ]
    compared += [(name, versions.get(name), now["versions"].get(name)) for name in ("jax", "jaxlib")]
    differing = [f"  {name}: {old} in the run, {new} now" for name, old, new in compared if old != new]
    if differing:
        raise UserError(
            "\n".join(["the losses would not be equal to the bit to those of the run so far", *differing]),
            where="--strict",
            help="go on where the run was; or without --strict: the examples stay the same, and losses agree closely",
        )


def begin(
    run: Run, mesh: jax.sharding.Mesh, store: Store, record: Record | None, tokenizer: str | None = None
) -> tuple[state.TrainState, list[str]]:
    """The state to start from, on its devices, and lines that say where it came from.

    Args:
      tokenizer: fingerprint of the data's, to compare with that of `init_from`.
    """
    schedule = run.schedule.over(run.steps)
    if record is not None:
        wanted = state.abstract(run.model, run.optimizer, schedule, mesh, run.mesh.layout())
        age = duration(max(0.0, time.time() - record.saved))
        return store.restore(record, wanted), [f"resuming step {record.step} of {run.steps}, saved {age} ago"]
    fresh = state.create(run.model, run.optimizer, schedule, mesh, run.seed, run.mesh.layout())
    if run.init_from is None:
        return fresh, ["new run"]
    params, report = warm_start(run, fresh.params, run.init_from, tokenizer)
    return state.TrainState(
        step=fresh.step, params=params, opt_state=fresh.opt_state, skipped=fresh.skipped
    ), report


def warm_start(run: Run, params: Any, origin: str, tokenizer: str | None = None) -> tuple[Any, list[str]]:
    """`params` with all that fits taken from a run directory or a Hugging Face directory.

    Args:
      params: fresh, on their devices; what the origin does not have stays as it is here.
      origin: the directory.
      tokenizer: fingerprint of the data's; a run that was trained with another is told.

    Returns:
      The parameters, and a report of what was matched, converted, missing, unexpected or of another shape.

    Raises:
      UserError: nothing there, another family (with both), an embedding of another size (with both), or nothing fits.
    """
    folder, notes = Path(origin), []
    if (folder / "checkpoints").is_dir():
        there, store, record = restore.open_run(folder)
        model, found = there.model, restore.load_params(there, store, record)
        if tokenizer is not None and record.tokenizer != tokenizer:
            notes = [
                f"  warning: they were trained with another tokenizer: fingerprint {record.tokenizer} there, "
                f"{tokenizer} here"
            ]
    else:
        from t5x_like.hub.pretrained import load_pretrained

        model, found = load_pretrained(origin, on_host=True)
    if isinstance(model, EncoderWithHead):
        model, found = model.encoder, found["encoder"]
    _check_family(run.model, model, origin)
    if isinstance(run.model, Electra):
        found = _regrouped(found, params)
    wanted = paths(params)
    layout = ""
    if wanted.keys() != paths(found).keys():
        scanned = any("/layers/" in f"/{path}" for path in wanted)
        converted = stack.stack_layers(found) if scanned else stack.unstack_layers(found)
        if paths(converted).keys() != paths(found).keys():
            found, layout = converted, f" (layers converted to {'scanned' if scanned else 'unrolled'})"
    given = paths(found)
    fits = {path for path in wanted.keys() & given.keys() if wanted[path].shape == given[path].shape}
    others = {
        path: f"{path}: {list(given[path].shape)} there, {list(wanted[path].shape)} here"
        for path in sorted((wanted.keys() & given.keys()) - fits)
    }
    report = [f"weights from {origin}: {len(fits)} of {len(wanted)} arrays matched{layout}", *notes]
    for label, names in (
        ("missing there, drawn at random", sorted(wanted.keys() - given.keys())),
        ("not used", sorted(given.keys() - wanted.keys())),
        ("of another shape, drawn at random", list(others.values())),
    ):
        if names:
            report.append(
                f"  {label}: {len(names)}: " + ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            )
    if not fits:
        raise UserError(
            "no array of the model fits\n" + "\n".join(report),
            where=f"init_from={origin}",
            help="take the model's configuration from where the weights come from",
            code=Exit.BAD_DATA,
        )
    leaves = [_spread(given[path], leaf) if path in fits else leaf for path, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves), report


def _spread(found: Any, leaf: jax.Array) -> jax.Array:
    """`found` where and as `leaf` lies; each of several processes has read all of it, and takes its shards."""
    host = np.asarray(found).astype(leaf.dtype)
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: host[index])


def _check_family(model: Any, there: Any, origin: str) -> None:
    """Refuses weights of another family, or of another vocabulary, for `model`."""
    wanted, found = _family(model), _family(there)
    if wanted != found:
        raise UserError(
            f"these are weights of {found}; the run trains {wanted}",
            where=f"init_from={origin}",
            help=f"a configuration of configs/{found.lower()}/, or weights of {wanted}",
            code=Exit.BAD_DATA,
        )
    if model.vocab_size != there.vocab_size:
        raise UserError(
            f"the embedding there has {there.vocab_size} rows; the model's has {model.vocab_size}",
            where=f"init_from={origin}",
            help=f"model.vocab_size={there.vocab_size}, and data prepared with the tokenizer of these weights",
            code=Exit.BAD_DATA,
        )


def _family(model: Any) -> str:
    """For people: T5, BERT, RoBERTa or ELECTRA. A plain encoder is RoBERTa's by where its positions begin."""
    if isinstance(model, Encoder):
        return "RoBERTa" if model.position_offset else "BERT"
    return "ELECTRA" if isinstance(model, Electra) else type(model).__name__


def _regrouped(found: Any, params: Any) -> Any:
    """ELECTRA's parameters with what `params` shares shared, whatever they shared before (or had no generator for)."""
    shared = found.get("shared", {})
    discriminator = {**shared, **found["discriminator"]}
    common = {name: discriminator.pop(name) for name in params.get("shared", {}) if name in discriminator}
    given = {"shared": common, "discriminator": discriminator}
    if "generator" in found:
        generator = {**shared, **found["generator"]}
        given["generator"] = {name: tree for name, tree in generator.items() if name not in common}
    return {name: tree for name, tree in given.items() if tree}
