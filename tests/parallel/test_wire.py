"""Bytes that a rank sends: each operation as counted, and a step's against the formula, axis by axis."""

import pytest
import torch

from helpers.parallel import wire_cases
from helpers.parallel.training import Training
from nano_llama.vol2_torch.parallel import ParallelConfig
from nano_llama.vol2_torch.parallel.comm_formulas import comm_bytes, rank_parameters
from nano_llama.vol2_torch.parallel.wire import sent_bytes

pytestmark = pytest.mark.parallel

GQA = Training(vocab_size=512, layers=3, intermediate=128)
UNTIED = Training(vocab_size=512, layers=2, tied=False, kv_heads=4)
MANY = Training(vocab_size=512, layers=4)
BF16 = Training(vocab_size=128, layers=4, intermediate=128, bf16=True)
SEQUENCES = {"sequence_parallel": True}


def test_operations(ranks):
    first, second = ranks(2).run(wire_cases.collectives)
    assert first == {
        "all-reduce": {"dp": 32}, "all-gather": {"dp": 32}, "all-gather of a list": {"dp": 32},
        "reduce-scatter": {"dp": 32}, "reduce-scatter of a list": {"dp": 32}, "all-to-all": {"dp": 16},
        "broadcast": {"dp": 16}, "barrier": {}, "point to point": {"dp": 32},
    }  # fmt: skip
    assert second == first | {"point to point": {}}


def test_a_real_reduce_scatter_costs_half_an_all_reduce():
    assert sent_bytes("reduce-scatter", 80, 4, "cuda") == 60
    assert sent_bytes("reduce-scatter", 80, 4, "cpu") == sent_bytes("all-reduce", 80, 4, "cpu") == 120


@pytest.mark.parametrize(
    ("mesh", "training", "options"),
    [
        ("dp=2", GQA, {}),
        ("dp=2", GQA, {"batches": 3}),
        ("fsdp=2", GQA, {}),
        ("fsdp=2", UNTIED, {"batches": 2}),
        ("fsdp=2", BF16, {"products": torch.bfloat16}),
        ("fsdp=2,pp=2", BF16, {"products": torch.bfloat16}),
        ("tp=2", GQA, {}),
        ("tp=2", UNTIED, {}),
        ("tp=2", GQA, SEQUENCES),
        ("tp=2", Training(heads=3, kv_heads=3, vocab_size=512), {}),
        ("tp=2", Training(heads=3, kv_heads=3, vocab_size=512), SEQUENCES),
        ("tp=4", GQA, {}),
        ("tp=4", GQA, SEQUENCES),
        ("fsdp=4", UNTIED, {}),
        ("dp=2,fsdp=2", GQA, {}),
        ("fsdp=2,tp=2", GQA, {}),
        ("fsdp=2,tp=2", UNTIED, SEQUENCES),
        ("dp=2,tp=2", GQA, {"batches": 2}),
        ("pp=2", GQA, {}),
        ("pp=2", UNTIED, {"batches": 2}),
        ("pp=2", UNTIED, {"schedule": "gpipe"}),
        ("pp=4", MANY, {}),
        ("dp=2,pp=2", GQA, {}),
        ("fsdp=2,pp=2", GQA, {}),
        ("pp=2,tp=2", UNTIED, {}),
        ("cp=2", GQA, {}),
        ("cp=4", GQA, {}),
        ("cp=2", UNTIED, {"context": "gather"}),
        ("cp=4", GQA, {"context": "gather"}),
        ("cp=2", GQA, {"context": "ulysses"}),
        ("cp=2,tp=2", GQA, {}),
        ("fsdp=2,cp=2", UNTIED, {}),
        ("pp=2,cp=2", GQA, {}),
    ],
)
def test_a_step_sends_what_the_formula_says(ranks, mesh, training, options):
    axes = ParallelConfig.parse(mesh)
    batches = options.get("batches", 1)
    tokens = wire_cases.B * wire_cases.T * batches // (axes.dp * axes.fsdp * axes.cp)
    for sent, calls, parameters, stage in ranks(axes.world_size).run(
        wire_cases.step, mesh=mesh, training=training, **options
    ):
        expected = comm_bytes(
            training.config(), axes, tokens=tokens, batches=batches, context=options.get("context", "ring"),
            sequence_parallel=options.get("sequence_parallel", False), stage=stage,
            gathered=2 if "products" in options else None,
        )  # fmt: skip
        assert sent.keys() == expected.keys(), calls
        for axis, formula in expected.items():
            assert sent[axis] == pytest.approx(formula, rel=0.02), (axis, calls)
        assert parameters == pytest.approx(sum(rank_parameters(training.config(), axes, stage).values()), rel=0.01)


def test_tensor_parallel_sums_the_stream_four_times_in_a_layer(ranks):
    _, calls, *_ = ranks(2).run(wire_cases.step, mesh="tp=2", training=GQA)[0]
    loss = 2  # the largest, then the sums
    assert calls == {("tp", "all-reduce"): 4 * GQA.layers + 2 + loss}
