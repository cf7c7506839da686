"""A checkpoint read by us and by transformers: the same tensors, the same activations, the same logits?

Not here: Volume 1's gradients against Volume 2's (gradients.py), where a checkpoint looks wrong by itself
(permutation_check.py). Tests: tests/verify/test_checkpoint.py.

Both sides compute in float32 on the CPU. "Relative error" is max|a-b| / max|b| per tensor; b is transformers' side.
"""

import contextlib
import dataclasses
import io
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nano_llama.core.errors import NanoLlamaError, UserError, import_extra
from nano_llama.core.rope import half_to_interleaved, interleaved_to_half
from nano_llama.verify.permutation_check import find_permuted

if TYPE_CHECKING:
    import torch

    from nano_llama.vol2_torch import Llama

# A text for models that bring a tokenizer: plain English, so that a trained model has something to predict.
TEXT = (
    "The lighthouse keeper climbed the stairs every evening to light the lamp. He had done so for thirty years, and "
    "in all that time he had never once been late. From the top he could see the harbour, the town behind it, and on "
    "clear nights the lights of the ships that passed on their way to the other side of the sea."
)


@dataclass(frozen=True)
class Row:
    """One comparison: `kind` is "tensor", "activation" or "logits"; worst is the index of the largest difference."""

    kind: str
    name: str
    shape: tuple[int, ...]
    relative_error: float
    worst: tuple[int, ...]
    ok: bool


@dataclass
class VerifyReport:
    """What was compared and what was found. `ok` is the verdict; `causes` are sentences, the most significant first."""

    path: str
    reference: str
    tolerance: float
    rows: list[Row] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.causes and all(row.ok for row in self.rows)

    @property
    def first_failure(self) -> Row | None:
        return next((row for row in self.rows if not row.ok), None)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **dataclasses.asdict(self)}


def verify_checkpoint(path: str | Path, reference: str | Path | None = None, tolerance: float = 1e-4) -> VerifyReport:
    """Compare our reading of `path` with transformers' reading of `reference` (by default the same path).

    path, reference: a Hugging Face folder or a .gguf. tolerance: the largest relative error that passes.
    Raises UserError where a side cannot be read, EnvironmentFault where transformers is missing.
    """
    torch = import_extra("torch", "verify", "verify")
    import_extra("transformers", "verify", "verify")
    from nano_llama.formats import resolve_model
    from nano_llama.vol2_torch import Llama

    path = resolve_model(path)
    reference = resolve_model(reference) if reference is not None else path
    report = VerifyReport(str(path), str(reference), tolerance)
    ours = Llama.from_pretrained(path)
    theirs = load_transformers(reference)
    tokens = _tokens_for(path, reference, ours.config.vocab_size, report)

    report.causes += config_differences(ours, theirs)
    tensor_rows, tensor_causes = compare_tensors(ours, theirs, tolerance)
    report.rows += tensor_rows
    report.causes += tensor_causes
    if _same_shapes(tensor_rows, ours, theirs):
        with torch.no_grad():
            report.rows += compare_activations(ours, theirs, tokens, tolerance)
    failure = report.first_failure
    if failure is not None and not report.causes:
        report.causes.append(_guess(failure))
    report.causes += find_permuted(ours, tokens)
    return report


def load_transformers(path: Path) -> Any:
    """transformers' model of a folder or .gguf, float32, in evaluation mode."""
    torch, transformers = import_extra("torch", "verify", "verify"), import_extra("transformers", "verify", "verify")
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True}
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"transformers cannot read {path}.", hint="Compare a Hugging Face folder or a .gguf; export it first."
            )
        for needed in ("gguf", "accelerate"):
            import_extra(needed, "verify", "transformers' reading of a .gguf")
        options["gguf_file"] = path.name
        path = path.parent
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars and advice are not our output
            return transformers.AutoModelForCausalLM.from_pretrained(path, **options).eval()
    except Exception as error:  # a damaged file makes it raise anything, struct.error included
        raise UserError(f"transformers cannot load {path}: {error or type(error).__name__}") from error


def _tokens_for(path: Path, reference: Path, vocab_size: int, report: VerifyReport) -> "torch.Tensor":
    """(1,T) tokens: the text above where there is a tokenizer, else random ids; a different BOS is reported."""
    import torch

    from nano_llama.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.from_pretrained(path)
        ids = tokenizer.encode(TEXT)
    except NanoLlamaError as error:
        report.notes.append(f"No tokenizer for the text, so random ids are compared ({error.message})")
        ids = np.random.default_rng(0).integers(0, vocab_size, 48).tolist()
        return torch.tensor([ids])
    theirs = _their_ids(reference)
    if theirs is None:
        report.notes.append("transformers found no tokenizer, so only ours was used.")
    elif theirs != ids:
        begin = tokenizer.bos_id
        if begin is not None and (theirs[:1] == [begin]) != (ids[:1] == [begin]):
            who = "transformers adds it, we do not" if theirs[:1] == [begin] else "we add it, transformers does not"
            report.causes.append(f"BOS: the text begins with token {begin} on one side only ({who}).")
        else:
            at = next(
                (i for i, (a, b) in enumerate(zip(ids, theirs, strict=False)) if a != b), min(len(ids), len(theirs))
            )
            report.causes.append(f"Tokenizer: the ids of a plain text differ from position {at} on.")
    return torch.tensor([ids])


def _their_ids(path: Path) -> list[int] | None:
    transformers = import_extra("transformers", "verify", "verify")
    where: dict[str, Any] = {"gguf_file": path.name} if path.is_file() else {}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                path.parent if path.is_file() else path, local_files_only=True, **where
            )
        return tokenizer(TEXT)["input_ids"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError):
        return None


def config_differences(ours: "Llama", theirs: Any) -> list[str]:
    """Sentences on the settings that change the mathematics and differ between our config and transformers'."""
    from nano_llama.core.config import LlamaConfig

    raw = theirs.config.to_dict()
    raw.pop("quantization_config", None)  # of a .gguf, whose weights are already dequantized
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warnings were given when we read the file
        other = LlamaConfig.from_hf_dict(raw, source="transformers' config")
    names = {
        "rms_norm_eps": "norm epsilon",
        "rope_theta": "RoPE theta",
        "rope_scaling": "RoPE scaling",
        "tie_word_embeddings": "tied head",
        "num_attention_heads": "query heads",
        "num_key_value_heads": "key/value heads",
        "head_dim": "head dim",
        "hidden_act": "activation",
        "sliding_window": "sliding window",
    }
    return [
        f"{what}: {name} is {getattr(ours.config, name)} here and {getattr(other, name)} in the reference."
        for name, what in names.items()
        if not _same_setting(getattr(ours.config, name), getattr(other, name))
    ]


def _same_setting(a: Any, b: Any) -> bool:
    """Equal, or floats that differ by float32's rounding: a .gguf keeps 1e-5 as 9.99999975e-06."""
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6))


def compare_tensors(ours: "Llama", theirs: Any, tolerance: float) -> tuple[list[Row], list[str]]:
    """Every parameter, by name. A q or k matrix that differs only in the order of its rows is reported as such."""
    rows, causes = [], []
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_params().items():
        a, b = parameter.detach(), reference.get(name)
        if b is None and name == "lm_head.weight":
            b = theirs.get_output_embeddings().weight  # a tied head has no own name
        if b is None or a.shape != b.shape:
            found = "missing" if b is None else f"of shape {tuple(b.shape)}"
            rows.append(Row("tensor", name, tuple(a.shape), float("inf"), (), False))
            causes.append(f"{name} has shape {tuple(a.shape)} here and is {found} in the reference.")
            continue
        row = _row("tensor", name, a, b.detach(), tolerance)
        rows.append(row)
        if not row.ok and name.endswith(("q_proj.weight", "k_proj.weight")):
            causes += _row_order_cause(name, a, b.detach(), ours.config.head_dim)
    return rows, causes


def _row_order_cause(name: str, a: "torch.Tensor", b: "torch.Tensor", head_dim: int) -> list[str]:
    if any(_close(a, turn(b, head_dim)) for turn in (half_to_interleaved, interleaved_to_half)):
        return [
            f"q/k permutation: the rows of {name} are the reference's, reordered between RoPE's half layout (Hugging "
            "Face) and its interleaved layout (Meta, GGUF)."
        ]
    if _close(a.sort(dim=0).values.sum(1), b.sort(dim=0).values.sum(1)):
        return [f"q/k permutation: {name} has the reference's rows in another order."]
    return []


def compare_activations(ours: "Llama", theirs: Any, tokens: "torch.Tensor", tolerance: float) -> Iterable[Row]:
    """The residual stream after every layer, the last norm, and the logits, for tokens (1,T)."""
    from nano_llama.vol2_torch.traces import Trace

    names = ["model.embed_tokens", *(f"model.layers.{i}" for i in range(ours.config.num_hidden_layers)), "model.norm"]
    with Trace(ours, names) as trace:
        logits = ours(tokens)
    recorded: dict[str, Any] = {}
    hooks = [
        theirs.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: recorded.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
        for name in names
    ]
    try:
        their_logits = theirs(tokens).logits
    finally:
        for hook in hooks:
            hook.remove()
    rows = [_row("activation", name, trace[name], recorded[name].view_as(trace[name]), tolerance) for name in names]
    return [*rows, _row("logits", "lm_head", logits, their_logits, tolerance)]


def _same_shapes(rows: list[Row], ours: "Llama", theirs: Any) -> bool:
    return (
        all(np.isfinite(row.relative_error) for row in rows)
        and ours.config.num_hidden_layers == theirs.config.num_hidden_layers
        and ours.config.vocab_size == theirs.config.vocab_size
    )


def _row(kind: str, name: str, a: "torch.Tensor", b: "torch.Tensor", tolerance: float) -> Row:
    difference = (a.double() - b.double()).abs()
    flat = int(difference.argmax())
    worst = tuple(int(i) for i in np.unravel_index(flat, tuple(a.shape)))
    error = float(difference.flatten()[flat] / b.double().abs().max().clamp(min=1e-12))
    return Row(kind, name, tuple(a.shape), error, worst, error <= tolerance)  # NaN fails


def _close(a: "torch.Tensor", b: "torch.Tensor") -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= 1e-6 * float(b.abs().max())


def _guess(row: Row) -> str:
    """What a first difference here usually means, when tensors and settings agree."""
    if row.name == "model.embed_tokens":
        return "The embeddings differ although the tensors agree: are the same tokens compared?"
    if row.kind == "activation" and row.name != "model.norm":
        return (
            f"The first difference is after {row.name}, although tensors and settings agree: within a layer that "
            "points to RoPE's layout or angles, to the mask, or to the norm's epsilon."
        )
    if row.kind == "tensor":
        return f"The first difference is the tensor {row.name} itself."
    return f"The first difference is at {row.name}: the last norm or the head (tied or not?)."
