"""Every axis, and axes together, against one process: the first step's gradients tensor by tensor, losses, norms.

In float32 twenty losses of the axes and of two products of them; of other products, and in float64, four in CI's
sample and three beyond it.
"""

from dataclasses import replace
from typing import Any

import pytest

from helpers.parallel.training import Training, compare, merged, train
from nano_llama.core.variants import variants
from nano_llama.vol2_torch.parallel import ParallelConfig
from nano_llama.vol2_torch.parallel.refusals import LLAMA_ONLY

pytestmark = pytest.mark.parallel

LONG, SAMPLED, SHORT = 20, 4, 3  # steps
TRAININGS = {
    "tied": Training(),
    "untied": Training(tied=False, z_loss=1e-4),
    "muon": Training(optimizer="muon"),
    "accumulation": Training(accumulate=3, rows=5, dtype="float64"),  # rows that no number of ranks divides
    "undivided": Training(vocab_size=65, intermediate=99, kv_heads=4, dtype="float64"),  # vocabulary, MLP; mha
    "mqa": Training(kv_heads=1, tied=False, z_loss=1e-4, dtype="float64"),
    "three_heads": Training(heads=3, kv_heads=3, dtype="float64"),
    "relu2": Training(hidden_act="relu2", dtype="float64"),
    "window": Training(sliding_window=5, dtype="float64"),
    "post_norm": Training(norm_placement="post", dtype="float64"),
    "reordered_norm": Training(norm_placement="reordered", dtype="float64"),
    "four_layers": Training(layers=4, optimizer="muon"),  # two for each stage of an interleaved pipeline
}
SEQUENCES = {"sequence_parallel": True}
MESHES: dict[str, tuple[str, dict[str, Any]]] = {
    "dp": ("dp=2", {}),
    "fsdp": ("fsdp=2", {}),
    "tp": ("tp=2", {}),
    "tp_sequences": ("tp=2", SEQUENCES),
    "fsdp_tp": ("fsdp=2,tp=2", {}),
    "fsdp_tp_sequences": ("fsdp=2,tp=2", SEQUENCES),
    "dp_tp": ("dp=2,tp=2", {}),
    "dp_fsdp": ("dp=2,fsdp=2", {}),
    "tp4": ("tp=4", {}),  # of two key/value heads each rank has a copy, and uses one
    "tp4_sequences": ("tp=4", SEQUENCES),
    "fsdp4": ("fsdp=4", {}),
    "cp": ("cp=2", {}),
    "cp_gather": ("cp=2", {"context": "gather"}),
    "cp_ulysses": ("cp=2", {"context": "ulysses"}),
    "cp4": ("cp=4", {}),
    "dp_cp": ("dp=2,cp=2", {}),
    "fsdp_cp": ("fsdp=2,cp=2", {}),
    "cp_tp": ("cp=2,tp=2", {}),
    "cp_tp_ulysses": ("cp=2,tp=2", {"context": "ulysses"}),
    "pp": ("pp=2", {}),
    "pp_gpipe": ("pp=2", {"schedule": "gpipe"}),
    "pp_interleaved": ("pp=2", {"schedule": "interleaved"}),
    "dp_pp": ("dp=2,pp=2", {}),
    "fsdp_pp": ("fsdp=2,pp=2", {}),
    "pp_tp": ("pp=2,tp=2", {}),
    "pp_cp": ("pp=2,cp=2", {}),
    "pp_fsdp_tp": ("pp=2,fsdp=2,tp=2", {}),
    "pp_dp_cp": ("pp=2,dp=2,cp=2", {}),
}
IN_FULL = {"dp", "fsdp", "tp", "cp", "pp", "fsdp_tp", "dp_pp"}  # whose losses in float32 are compared for LONG
SAMPLE = {  # what CI runs
    ("dp", "tied"), ("dp", "accumulation"), ("fsdp", "tied"), ("fsdp", "accumulation"), ("tp", "tied"),
    ("tp_sequences", "undivided"), ("fsdp_tp", "tied"), ("fsdp_tp_sequences", "mqa"), ("dp_tp", "mqa"),
    ("dp_fsdp", "mqa"), ("tp4", "accumulation"), ("fsdp_tp", "muon"), ("dp", "muon"),
    ("cp", "tied"), ("cp_ulysses", "accumulation"), ("fsdp_cp", "mqa"), ("cp_tp", "mqa"),
    ("pp", "tied"), ("dp_pp", "mqa"), ("fsdp_pp", "tied"), ("pp_tp", "mqa"), ("pp_cp", "mqa"),
    ("pp_interleaved", "four_layers"),
}  # fmt: skip
REFUSED = {  # heads that ulysses does not divide; three rows for a pipeline that wants four microbatches
    ("cp_ulysses", "three_heads"), ("cp_tp_ulysses", "three_heads"), ("dp_pp", "accumulation"),
    ("fsdp_pp", "accumulation"), ("pp_fsdp_tp", "accumulation"), ("pp_dp_cp", "accumulation"),
}  # fmt: skip


def pertains(mesh: str, training: str) -> bool:
    """Whether it is possible there, and another one does not show the same."""
    axes = {axis.partition("=")[0] for axis in MESHES[mesh][0].split(",")}
    if (mesh, training) in REFUSED or (variants(TRAININGS[training]) and axes & set(LLAMA_ONLY)):
        return False
    if training == "four_layers":
        return "pp" in axes and len(axes) < 3
    if mesh == "pp_interleaved":  # it needs four layers
        return False
    if len(axes) == 3:  # eight processes
        return training in ("muon", "mqa")
    if training == "undivided":
        return bool(axes & {"fsdp", "tp", "cp"})
    if training == "three_heads":
        return bool(axes & {"fsdp", "tp"})
    if mesh in IN_FULL:
        return True
    if training == "untied":
        return False  # "mqa" is untied too, and float64
    return training != "tied" or (mesh, "accumulation") in REFUSED


CASES = [
    pytest.param(mesh, training, marks=() if (mesh, training) in SAMPLE else pytest.mark.slow)
    for mesh in MESHES
    for training in TRAININGS
    if pertains(mesh, training)
]


def of_length(mesh: str, training: str) -> Training:
    asked = TRAININGS[training]
    short = SAMPLED if (mesh, training) in SAMPLE else SHORT
    return replace(asked, steps=LONG if mesh in IN_FULL and asked.dtype == "float32" else short)


@pytest.mark.parametrize(("mesh", "training"), CASES)
def test_a_mesh_trains_as_one_process_does(ranks, mesh, training):
    (axes, options), asked = MESHES[mesh], of_length(mesh, training)
    outcomes = ranks(ParallelConfig.parse(axes).world_size).run(train, mesh=axes, training=asked, **options)
    compare(merged(outcomes), asked, f"{axes} {options or ''}")
    assert all(outcome.losses == outcomes[0].losses for outcome in outcomes), "all ranks see the same losses"
    assert all(outcome.norms == outcomes[0].norms for outcome in outcomes), "and clip alike"


def test_what_is_wrong_is_found(ranks):
    """The comparison itself: another model's gradients differ, and the tensor is named."""
    outcome = ranks(2).run(train, mesh="fsdp=2", training=of_length("fsdp", "mqa"))[0]
    with pytest.raises(AssertionError, match=r"gradient of \S+weight differs"):
        compare(outcome, replace(of_length("fsdp", "mqa"), z_loss=2e-4), "fsdp=2")
