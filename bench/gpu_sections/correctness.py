"""What must be right on a card before any figure counts. Each section compares with something that needs no card."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_sections.fused_pairs import PAIRS, Pair
from gpu_sections.measure import COMPILERS, in_processes, relative_error
from gpu_sections.report import Place, Report, needs_triton
from gpu_sections.runs import GRAPH, TRITON, possible, random_text, settings_of
from gpu_sections.table import GRADIENT_ERROR, TWIN_ERROR, Bar
from nano_llama import LLM, LlamaConfig, SamplingParams, Tokenizer, vol1_numpy
from nano_llama.core.init import init_params
from nano_llama.formats.shipped import shipped_model
from nano_llama.training import TrainSettings
from nano_llama.training.callback import Callback
from nano_llama.training.metrics import read_metrics
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.trainer import Trainer

PATHS: dict[str, dict[str, Any]] = {
    "defaults": {"compile": "off"},
    "compiled": {"compile": "on"},
    "triton": {"compile": "off", **TRITON},
    "graph": {"compile": "off", **GRAPH},
}


def gradients(place: Place, report: Report) -> None:
    """Loss and gradients in float32 against Volume 1 in float64, from the same weights; with our kernels too."""
    for path, names in (("", ()), (", triton", ("flash_attention", "rmsnorm", "rope", "swiglu"))):
        if names and place.rehearse and not find_spec("triton"):
            continue
        for kv_heads, tied in ((4, False), (2, True), (1, False)):
            what = f"{kv_heads} key/value heads of 4, {'tied' if tied else 'untied'}{path}"
            with report.attempt(what):
                config = LlamaConfig(
                    vocab_size=101, hidden_size=128, intermediate_size=200, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=kv_heads, max_position_embeddings=128, tie_word_embeddings=tied,
                    initializer_range=0.1,
                )  # fmt: skip
                model = Llama.init(config, 0, place.device).train()
                if names:
                    from nano_llama.vol2_torch.kernels.in_model import use_kernels

                    use_kernels(model, names, torch.float32)
                loss, worst, error = gradient_errors(model)
                report.row(f"gradients against Volume 1, {what}", error, "relative", GRADIENT_ERROR, worst)
                report.row(f"loss against Volume 1, {what}", loss, "relative", Bar(at_most=1e-5))


def gradient_errors(model: Llama) -> tuple[float, str, float]:
    """Relative errors against Volume 1: of the loss; the tensor whose gradient has the largest, and that."""
    params = init_params(model.config, 0, np.float64)
    tokens, targets = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 2, 75))  # (B,T) each
    wanted_loss, wanted = vol1_numpy.Llama(model.config, params).loss_and_grads(tokens, targets)
    inputs, outputs = (torch.from_numpy(array).to(model.device) for array in (tokens, targets))
    loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), outputs.flatten())
    loss.backward()
    errors = {
        name: relative_error(parameter.grad.cpu(), torch.from_numpy(wanted[name]))
        for name, parameter in model.named_params().items()
        if parameter.grad is not None
    }
    assert errors.keys() == wanted.keys(), f"gradients of {sorted(wanted.keys() ^ errors.keys())}"
    worst = max(errors, key=lambda name: errors[name])
    return abs(loss.item() - wanted_loss) / wanted_loss, worst, errors[worst]


def logits(place: Place, report: Report) -> None:
    """nano_gpt in float32. The engine's texts are those that the same engine makes on the CPU."""
    folder = shipped_model("nano_gpt")
    assert folder is not None, "the package holds it"
    prompts = [
        "Once upon a time",
        "The captain of the ship",
        "It was a dark",
        '"I do not know," said',
        "In London",
        "A",
    ]
    ids = Tokenizer.from_pretrained(folder).encode(" ".join(prompts))
    tokens = torch.tensor([ids])
    with torch.no_grad():
        wanted = Llama.from_pretrained(folder)(tokens)
        found = Llama.from_pretrained(folder, device=place.device)(tokens.to(place.device)).cpu()
    report.row("nano_gpt's logits, card against CPU", relative_error(found, wanted), "relative", Bar(at_most=1e-4))
    params = SamplingParams(temperature=0.0, max_tokens=place.pick(48, 4), ignore_eos=True)
    texts = []
    for device in ("cpu", str(place.device)):
        with LLM("nano_gpt", runner="torch", device=device, dtype="float32", kv_cache_memory="64MiB") as llm:
            texts.append([out.token_ids for out in llm.generate(prompts, params)])
    equal = sum(map(list.__eq__, *([list(map(list, side)) for side in texts])))
    report.same("nano_gpt's greedy texts, card against CPU", equal == len(prompts), f"{equal} of {len(prompts)} equal")


# -- training runs whose bits are compared ----------------------------------------------------------------------------


class Notices(Callback):
    """Keeps what a run says of a kernel or a graph that it does without."""

    def __init__(self) -> None:
        self.fallbacks: list[str] = []

    def notice(self, text: str) -> None:
        if "is not used" in text or "cannot be recorded" in text:
            self.fallbacks.append(text)


def short_run(place: Place, **changes: Any) -> TrainSettings:
    """Muon, dropout, an average of the weights and bf16: all that draws or sums."""
    settings = settings_of(
        place, "nano", batch_size=8, context=128, num_hidden_layers=2, dropout=0.1, ema=0.9, evaluations=4, **changes
    )
    data = str(place.scratch / "random-256.txt")
    return settings.replace(data=data, max_steps=place.pick(120, 12), log_every=1, evaluations=4)


def train(settings: TrainSettings, out: Path, **options: Any) -> tuple[str, list[str]]:
    """-> a hash of the final weights, and what the run did without."""
    notices = Notices()
    Trainer(settings, out, progress=notices, **options).fit()
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(), notices.fallbacks


def deterministic(place: Place, report: Report) -> None:
    """Each path with deterministic = on: trained twice, and killed (SIGKILL, at a checkpoint) and resumed."""
    dataset = random_text(place, 256, 300_000)
    for number, (name, changes) in enumerate(possible(place, PATHS).items()):
        with report.attempt(f"deterministic, {name}"):
            settings = short_run(place, **changes, deterministic="on")
            folders = [place.scratch / f"deterministic-{number}-{which}" for which in ("first", "second", "killed")]
            saved_at = killed_at_a_checkpoint(settings, dataset.folder, folders[2])
            (first, without), (second, _) = (train(settings, out, dataset=dataset) for out in folders[:2])
            assert not without, " ".join(without)
            report.same(f"deterministic = on, {name}: twice", first == second, f"{first[:12]} and {second[:12]}")
            saved = saved_at()
            third, _ = train(settings, folders[2], dataset=dataset, resume=True)
            report.same(f"deterministic = on, {name}: killed and resumed", first == third, f"killed after {saved}")
    with report.attempt("deterministic = off"):
        settings = short_run(place, compile="off")
        found = {train(settings, place.scratch / f"free-{which}", dataset=dataset)[0] for which in (1, 2)}
        report.note("two runs without it give the same bits", len(found) == 1)


def killed_at_a_checkpoint(settings: TrainSettings, dataset: Path, out: Path) -> Callable[[], str]:
    """Start the run in a process of its own. -> a function that waits until it was killed: the checkpoint it had."""
    arguments = [json.dumps(settings.to_json()), str(dataset), str(out)]
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED_RUN, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def wait() -> str:
        assert child.stdout is not None, "it has a pipe"
        said = child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        status = child.wait()
        assert said.strip() == "saved" and status == -signal.SIGKILL, f"it ended by itself, status {status}"
        return max((out / "checkpoints").glob("step-*")).name

    return wait


STOPPED_RUN = """
import json, sys
from pathlib import Path
from nano_llama.data.dataset import Dataset
from nano_llama.training import TrainSettings
from nano_llama.training.callback import Callback
from nano_llama.vol2_torch.trainer import Trainer

class Stop(Callback):
    def stepped(self, record):
        if any(Path(sys.argv[3], "checkpoints").glob("step-*")):
            print("saved", flush=True)
            sys.stdin.readline()  # until it is killed

settings = TrainSettings.from_json(json.loads(sys.argv[1]))
Trainer(settings, sys.argv[3], dataset=Dataset(sys.argv[2]), progress=Stop()).fit()
"""


def step(place: Place, report: Report) -> None:
    """The step that needs no synchronization (execution = graph) against the plain one, loss by loss.

    Not bit by bit: in a graph the learning rate is a tensor, so that it is rounded otherwise.
    """
    dataset = random_text(place, 256, 300_000)
    paths = {"fp32": {"compile": "off", "precision": "fp32"}, "bf16, compiled": {"compile": "on"},
             "fp32, triton": {"compile": "off", "precision": "fp32", **TRITON}}  # fmt: skip
    for number, (name, changes) in enumerate(possible(place, paths).items()):
        with report.attempt(f"execution = graph, {name}"):
            losses = []
            for execution in ("eager", "graph"):
                settings = short_run(place, **changes, deterministic="on", execution=execution)
                out = place.scratch / f"step-{number}-{execution}"
                _, without = train(settings, out, dataset=dataset)
                assert not without, " ".join(without)
                losses.append(np.array([row["train_loss"] for row in read_metrics(out / "metrics.jsonl")]))
            apart = np.abs(losses[1] / losses[0] - 1).max()
            bar = Bar(at_most=1e-4 if "fp32" in name else 1e-3)
            report.row(f"losses of {len(losses[0])} steps, as a graph / eager, {name}", apart, "relative", bar)


# -- kernels ----------------------------------------------------------------------------------------------------------

# B, H, G, T, S, K: grouped heads, odd lengths, fewer queries than keys, head dims of all kinds
SHAPES = ((2, 4, 4, 256, 256, 64), (1, 6, 2, 131, 131, 128), (1, 2, 2, 256, 256, 128), (2, 3, 1, 77, 200, 96),
          (1, 4, 2, 1, 90, 80), (1, 2, 1, 333, 333, 32))  # fmt: skip
TINY_SHAPES = ((1, 2, 1, 20, 20, 32), (1, 2, 2, 5, 19, 48))


def attention(place: Place, report: Report) -> None:
    """flash_attention and its gradients against a softmax written out in float64; beside it, SDPA's errors."""
    needs_triton()
    cases = [
        (place, shape, dtype, documents)
        for dtype, *_ in place.pick(ATTENTION_BARS, ATTENTION_BARS[:1])
        for shape in place.pick(SHAPES, TINY_SHAPES)
        for documents in (False, True)
        if not documents or shape[3] == shape[4]
    ]
    found = dict(zip(cases, in_processes(attention_errors, cases, place.pick(COMPILERS, 0)), strict=True))
    for dtype, *bars in place.pick(ATTENTION_BARS, ATTENTION_BARS[:1]):
        name = str(dtype).removeprefix("torch.")
        with report.attempt(f"flash_attention, {name}"):
            errors = [one for case, one in found.items() if case[2] == dtype]
            for failure in (one for one in errors if isinstance(one, Exception)):
                raise failure
            for part, bar in zip(("forward", "gradients"), bars, strict=True):
                mine, sdpa = (max(pair[form][part] for pair in errors) for form in (0, 1))
                report.row(f"flash_attention in {name}, {part}", mine, "relative", bar, f"SDPA {sdpa:.1e}")


# Where the masks allow it no flash kernel of SDPA's, its own sums are exact: kernels.py compares like with like.
ATTENTION_BARS = (
    (torch.float32, TWIN_ERROR, GRADIENT_ERROR),
    (torch.float16, Bar(at_most=2e-3), Bar(at_most=4e-3)),
    (torch.bfloat16, Bar(at_most=1e-2), Bar(at_most=2e-2)),
)


def attention_errors(
    place: Place, shape: tuple[int, ...], dtype: torch.dtype, packed: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """The kernel's relative errors and SDPA's against float64: of the output, and the worst gradient's."""
    from nano_llama.vol2_torch.kernels import flash_attention

    B, H, G, T, S, K = shape
    generator = torch.Generator().manual_seed(T + K)
    draw = lambda heads, length: torch.randn(B, heads, length, K, generator=generator)  # noqa: E731
    given = [tensor.to(place.device, dtype) for tensor in (draw(H, T), draw(G, S), draw(G, S), draw(H, T))]
    documents = (torch.arange(T) // max(T // 3, 1)).expand(B, T).to(place.device) if packed else None  # (B,T)
    mask = torch.ones(T, S, dtype=torch.bool, device=place.device).tril(S - T)
    if documents is not None:
        mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])  # (B,1,T,S)

    def outcome(attend: Callable, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        q, k, v = (tensor.detach().clone().requires_grad_() for tensor in tensors[:3])
        y = attend(q, k, v)
        return {"forward": y, **dict(zip("qkv", torch.autograd.grad(y, (q, k, v), tensors[3]), strict=True))}

    def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = (tensor.repeat_interleave(H // G, 1) for tensor in (k, v))
        return (q @ k.mT / K**0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ v

    wanted = outcome(written_out, *(tensor.double() for tensor in given))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    found = (
        outcome(lambda q, k, v: flash_attention(q, k, v, documents=documents), *given),
        outcome(lambda q, k, v: sdpa(q, k, v, attn_mask=mask, enable_gqa=True), *given),
    )
    errors = [{part: relative_error(one[part], wanted[part]) for part in wanted} for one in found]
    mine, theirs = ({"forward": e["forward"], "gradients": max(e[part] for part in "qkv")} for e in errors)
    return mine, theirs


HALF_A_STEP = 2.0**-9  # bf16's rounding: a reference that errs less did so by luck


def fused(place: Place, report: Report) -> None:
    """The fused kernels against their references in float64: in float32 by the bars, in bf16 beside the reference."""
    needs_triton()
    for name, make in PAIRS.items():
        with report.attempt(name):
            pair = make(place, torch.float32, small=True)
            error = pair_errors(pair, pair.kernel)
            report.row(f"{name} in float32, forward", error["forward"], "relative", TWIN_ERROR)
            report.row(f"{name} in float32, gradients", error["gradients"], "relative", GRADIENT_ERROR)
            if not place.rehearse:  # the interpreter has no bf16
                pair = make(place, torch.bfloat16, small=True)
                mine, plain = pair_errors(pair, pair.kernel), pair_errors(pair, pair.reference)
                for part, found in mine.items():
                    ratio = found / max(plain[part], HALF_A_STEP)
                    report.row(f"{name} in bf16, {part}: error / the reference's", ratio, "x", Bar(at_most=2.0),
                               f"{found:.1e} and {plain[part]:.1e}")  # fmt: skip


def pair_errors(pair: Pair, form: Callable) -> dict[str, float]:
    """Relative errors of a form against the reference in float64: of what it returns, and the worst gradient's."""
    wanted, found = pair.outcome(pair.reference, torch.float64), pair.outcome(form)
    made, gradients = ([relative_error(*each) for each in zip(found[i], wanted[i], strict=True)] for i in (0, 1))
    return {"forward": max(made), "gradients": max(gradients)}
