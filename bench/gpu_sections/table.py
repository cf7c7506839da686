"""The sections of bench/gpu.py in the order they run, and the bars. Imports nothing heavy: the driver reads it."""

from typing import Any, NamedTuple

from nano_llama.core.errors import UserError


class Section(NamedTuple):
    name: str
    module: str  # its function has the section's name
    call: int  # of the two
    seconds: int  # what it is expected to take, its process's start included; with less time left it is skipped
    limit: int  # when it is killed
    correctness: bool
    shows: str


def _right(name: str, seconds: int, limit: int, shows: str) -> Section:
    return Section(name, "gpu_sections.correctness", 1, seconds, limit, True, shows)


def _figures(name: str, module: str, call: int, seconds: int, limit: int, shows: str) -> Section:
    return Section(name, f"gpu_sections.{module}", call, seconds, limit, False, shows)


SECTIONS = (
    # call 1: first what must be right, then what is wanted most
    _right("attention", 25, 60, "flash_attention in float32, float16 and bfloat16 against float64, and its gradients"),
    _right("fused", 20, 50, "the fused kernels against their references in float64, and their gradients"),
    _right("gradients", 6, 30, "Volume 2's loss and every gradient on the card against Volume 1"),
    _right("logits", 10, 40, "nano_gpt on the card against the CPU: logits, and greedy text by the engine"),
    _right("step", 25, 60, "the training step that needs no synchronization against the plain one"),
    _right("deterministic", 45, 90, "deterministic=on: the same run twice, and killed and resumed: the same bits"),
    _figures("flash", "kernels", 1, 20, 60, "flash_attention beside SDPA's flash kernel, T = 4,096"),
    _figures("nano", "training", 1, 45, 80, "training the preset nano: tokens/s"),
    _figures("shakespeare", "training", 1, 70, 90, "the preset shakespeare-gpu: validation loss, within 60 s"),
    _figures("train_350m", "training", 1, 75, 110, "training 350M at T = 2,048: tokens/s and MFU, beside transformers"),
    # call 2: what takes long, compiled peers last
    _figures("train_1b", "training", 2, 70, 110, "training 1B at T = 2,048: tokens/s and MFU, beside transformers"),
    _figures("generate_135m", "generation", 2, 30, 60, "prefill and decode of 135M by the engine, beside transformers"),
    _figures("generate_1b", "generation", 2, 35, 60, "the same of 1B"),
    _figures("generate_8b", "generation", 2, 45, 75, "the same of 8B"),
    _figures("flash_tiles", "kernels", 2, 40, 75, "flash_attention with other tiles than its table's"),
    _figures("fused_speed", "kernels", 2, 25, 50, "the fused kernels beside their references, eager and compiled"),
    _figures("compiled_350m", "training", 2, 50, 100, "transformers, compiled, training 350M"),
    _figures("compiled_1b", "generation", 2, 45, 90, "transformers, compiled, with a static cache: decode of 1B"),
)  # fmt: skip

CORRECTNESS = tuple(section.name for section in SECTIONS if section.correctness)


def by_name(name: str) -> Section:
    found = [section for section in SECTIONS if section.name == name]
    if not found:
        raise UserError(f"Unknown section {name!r}.", hint=f"Known: {', '.join(section.name for section in SECTIONS)}.")
    return found[0]


class Bar(NamedTuple):
    """at_most or at_least is None."""

    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:  # NaN meets none
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


SAME = Bar(at_least=1.0)  # of what is equal or is not: 1 or 0
FLASH_FORWARD, FLASH_BACKWARD = Bar(at_least=0.70), Bar(at_least=0.55)  # of the speed of SDPA's flash kernel
SDPA_ERRORS = Bar(at_most=2.0)  # times SDPA's own error against float64
TWIN_ERROR = Bar(at_most=1e-5)  # relative, float32, of a kernel's forward against its reference
GRADIENT_ERROR = Bar(at_most=1e-4)  # relative, float32, of gradients against Volume 1
NANO_RATE = Bar(at_least=3e6)  # tokens/s
SHAKESPEARE_LOSS = Bar(at_most=1.4697)  # nanoGPT's, which takes 3 minutes on an A100
MFU_350M, MFU_1B = Bar(at_least=0.50), Bar(at_least=0.60)  # of the measured matrix peak


def passed(result: dict[str, Any]) -> bool:
    """Whether every correctness section of a gpu_*.json ran on a card and met its bars.

    Paths that only a card can prove (attention = triton, a captured step) are opted into until bench/results holds a
    file that passed: the commit that adds it may let `auto` choose them, where the figures beside it say they are
    faster. tests/bench/test_gpu_results.py holds `auto` to that; nothing reads it while a model runs.
    """
    found = result["sections"]
    return not result["rehearsal"] and all(found.get(name, {}).get("passed", False) for name in CORRECTNESS)
