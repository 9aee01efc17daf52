"""export: what stands in the folder, and what is refused. (The weights themselves: tests/hub.)"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_encoder
import tiny_model

from t5x_like import export
from t5x_like.data.partial import held
from t5x_like.data.tokenizers import load_tokenizer
from t5x_like.errors import Exit, UserError
from t5x_like.hub.pretrained import load_pretrained
from t5x_like.hub.t5 import import_t5
from t5x_like.models.stack import stack_layers
from t5x_like.training import restore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_model.run_directory(tmp_path_factory.mktemp("export") / "run")


def command(**flags) -> None:
    export.FLAGS.unparse_flags()
    for name in list(export.FLAGS):
        export.FLAGS[name].unparse()
    export.FLAGS(["export", *(f"--{k}={v}" for k, v in flags.items())])
    assert export.main([]) == Exit.DONE


def test_weights_tokenizer_and_card(run, tmp_path, capsys):
    output = tmp_path / "deep" / "hf"
    command(workdir=run, output=output)
    assert f'from_pretrained("{output}")' in capsys.readouterr().out
    _, params = import_t5(output)
    _, ours = restore.restore_params(run, "best")
    jax.tree.map(np.testing.assert_array_equal, stack_layers(params), ours)
    assert load_tokenizer(output).vocabulary == load_tokenizer(run / "tokenizer").vocabulary

    card = (output / "README.md").read_text()
    for fact in ("2 of 10", "1,120", "6.0011", tiny_model.RECORD.data, tiny_model.RECORD.tokenizer):
        assert fact in card
    assert [p.name for p in output.parent.iterdir()] == ["hf"]  # nothing half-made left beside it


@pytest.mark.parametrize("run", [tiny_encoder.BERT, tiny_encoder.ELECTRA], ids=lambda run: run.name)
def test_encoders_come_back(run, tmp_path, capsys):
    workdir, output = tiny_encoder.run_directory(tmp_path / "run", run), tmp_path / "hf"
    command(workdir=workdir, output=output)
    model, params = load_pretrained(output)
    assert type(model) is type(run.model) and model.num_params() == run.model.num_params()
    jax.tree.map(np.testing.assert_array_equal, params, restore.restore_params(workdir)[1])
    assert load_tokenizer(output).vocabulary == tiny_encoder.tokenizer().vocabulary
    loads, card = capsys.readouterr().out, (output / "README.md").read_text()
    assert "AutoModelForMaskedLM" in loads and "AutoModelForMaskedLM" in card
    if run is tiny_encoder.ELECTRA:
        assert f'AutoModelForPreTraining.from_pretrained("{output}")' in loads
        assert f'AutoModelForMaskedLM.from_pretrained("{output}/generator")' in loads
        assert (
            "cross_entropy + detection" in card
            and (output / "generator" / "vocab.txt").exists() == (output / "vocab.txt").exists()
        )


def test_a_full_folder_is_replaced_only_on_request(run, tmp_path):
    (tmp_path / "old.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty") as caught:
        command(workdir=run, output=tmp_path)
    assert caught.value.code == Exit.CANNOT_WRITE
    assert (tmp_path / "old.txt").exists()
    command(workdir=run, output=tmp_path, overwrite=True)
    assert not (tmp_path / "old.txt").exists() and (tmp_path / "model.safetensors").exists()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_gives_the_same_bytes(run, tmp_path):
    """Twice by real processes that end as by kill -9; what was there before is never lost."""
    command(workdir=run, output=tmp_path / "whole")
    whole, output = contents(tmp_path / "whole"), tmp_path / "hf"
    for place, there_before in (("export.written", False), ("export.aside", True)):
        if there_before:
            output.mkdir()
            (output / "old.txt").write_text("mine")
        words = [
            sys.executable,
            "-m",
            "t5x_like.export",
            f"--workdir={run}",
            f"--output={output}",
            "--overwrite",
        ]
        done = subprocess.run(words, env=os.environ | {"T5X_LIKE_FAULT": f"{place}:1"}, capture_output=True)
        assert done.returncode == 137 and not (output / "model.safetensors").exists()
        if there_before:
            assert (tmp_path / ".hf.old" / "old.txt").read_text() == "mine"
        command(workdir=run, output=output, overwrite=True)
        assert contents(output) == whole
        assert {path.name for path in tmp_path.iterdir()} == {"whole", "hf"}, "nothing half-made is left"
        shutil.rmtree(output)


def test_a_flipped_bit_in_exported_weights_is_found(run, tmp_path):
    output = tmp_path / "hf"
    command(workdir=run, output=output)
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=output, capture_output=True
    )
    assert checked.returncode == 0, checked.stdout
    (output / "README.md").write_text("a card of one's own")
    import_t5(output)
    path = output / "model.safetensors"
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2, 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="is not as it was exported") as caught:
            import_t5(output)
        assert caught.value.code == Exit.CORRUPT
    (output / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(UserError, match="expected lines of sum"):
        import_t5(output)


def test_two_exports_at_once(run, tmp_path):
    with held(tmp_path / ".hf.partial"), pytest.raises(UserError, match="another process") as caught:
        command(workdir=run, output=tmp_path / "hf")
    assert caught.value.code == Exit.LOCKED


def test_refusals(run, tmp_path):
    with pytest.raises(UserError, match="--output is needed"):
        command(workdir=run)
    with pytest.raises(UserError, match="not a run directory"):
        command(workdir=tmp_path, output=tmp_path / "hf")
    with pytest.raises(UserError, match="no checkpoint of step 7"):
        command(workdir=run, output=tmp_path / "hf", checkpoint=7)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="this is a file"):
        command(workdir=run, output=tmp_path / "file")


@pytest.mark.parametrize("where", [".", "..", "../link"])
def test_a_run_is_never_replaced(run, where):
    link = run.parent / "link"
    if not link.exists():
        link.symlink_to(run)
    with pytest.raises(UserError, match="holds a run") as caught:
        command(workdir=run, output=run / where, overwrite=True)
    assert caught.value.code == Exit.CANNOT_WRITE
    assert (run / "checkpoints").is_dir()
