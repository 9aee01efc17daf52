"""By arithmetic: the train state against formulas of Adam and Adafactor, activations against a layer by hand."""

import jax
import pytest

from t5x_like import config
from t5x_like.planning import plans, topologies
from t5x_like.planning.formula import Formula
from t5x_like.planning.stages import stages


def formula(name, overrides, topology):
    run = config.load(name, overrides)
    (stage, *_) = stages(run)
    return Formula(stage), plans.abstract_mesh(run, topologies.parse(topology))


def test_adam_holds_two_copies_and_a_copy_is_whole_on_each_device():
    model, mesh = formula("bert/large", [], "v5e:4x4")
    memory = model.memory(mesh)
    parameters = 336_226_108
    assert memory["parameters"] == pytest.approx(4 * parameters, rel=0.001)  # tables padded to 128 rows
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.001)


def test_fsdp_divides_the_state_and_adafactor_holds_next_to_nothing():
    whole = formula("t5/base", [], "v5e:4x4")
    split = formula("t5/base", ["mesh.fsdp=16"], "v5e:4x4")
    assert whole[0].memory(whole[1])["parameters"] == 4 * 247_577_856
    assert split[0].memory(split[1])["parameters"] == pytest.approx(4 * 247_577_856 / 16, rel=0.01)
    assert whole[0].memory(whole[1])["optimizer"] < 0.01 * 4 * 247_577_856


def test_activations_grow_with_rows_and_shrink_with_recomputation():
    def kept(*overrides):
        model, mesh = formula("t5/small", ["model.dtype=bfloat16", *overrides], "v5e:4x4")
        return model.memory(mesh)["activations"]

    assert kept("microbatches=4") == pytest.approx(kept("microbatches=2") / 2, rel=0.01)
    assert kept("model.remat=full") < kept("model.remat=attention") < kept()
    # Of a whole layer only its input stays: 128 rows x (512 + 114) x 512 in bfloat16, eight layers of each stack. The
    # rest is the head: logits in float32 with their softmax, 128 x 114 x 32128.
    layers = 128 * (512 + 114) * 512 * 2 * 8
    logits = 128 * 114 * 32128 * 4
    assert layers + 2 * logits < kept("model.remat=full") < layers * 1.5 + 3 * logits


def test_operations_and_collectives_of_a_split_model():
    model, mesh = formula("t5/base", ["mesh.fsdp=4", "mesh.tensor=2", "microbatches=2"], "v5e:4x4")
    assert model.flops(mesh) * 16 == pytest.approx(model.stage.flops)
    found = {(c.kind, c.group): c for c in model.collectives(mesh)}
    shard = model.memory(mesh)["parameters"]
    assert found["all-gather", (0, 2, 4, 6)].bytes == 4 * shard
    assert found["all-gather", (0, 2, 4, 6)].times == 2 * 2
    assert found["all-reduce", (0, 8)].bytes == shard
    assert found["all-reduce", (0, 1)].times == 4 * 24 * 2  # four a layer, in both microbatches
    assert jax.device_count() == 8  # none of the sixteen is there
