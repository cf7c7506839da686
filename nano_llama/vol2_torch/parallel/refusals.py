"""What a mesh cannot do, refused by the axis' name before anything is read. Tests: tests/parallel/test_refusals.py."""

from collections.abc import Collection

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.variants import require_llama
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.cp import packed_over_cp
from nano_llama.vol2_torch.parallel.pp import choose_microbatches

# The axes that divide LLaMA's form alone (core/variants.py): a stage and a rank's part of a sequence attend without a
# mask, norms are divided where they stand before sublayers, and no other form is compared with one process there.
LLAMA_ONLY = ("tp", "pp", "cp")


def check_variant(config: LlamaConfig, used: Collection[str]) -> None:
    """Raise UserError where one of these axes cannot divide this model."""
    for axis in used:
        if axis in LLAMA_ONLY:
            require_llama(config, axis, hint="dp and fsdp train it.")


def check_mesh(settings: TrainSettings, axes: ParallelConfig) -> None:
    """Raise UserError for the first setting that one of the axes cannot honour."""
    for name, asked, refusing, why, hint in (
        (
            "adapter", settings.lora is not None, ("tp", "pp", "cp"), "an adapter's layers are not divided there",
            "Adapters train over dp and fsdp; --adapter none trains all weights.",
        ),
        (
            "base_quantization", settings.base_quantization is not None, ("fsdp",), "blocks are not divided there",
            "Over dp each process has them all; over fsdp leave base_quantization out.",
        ),
        (
            "optimizer", settings.optimizer == "adafactor", ("fsdp", "tp"), "it needs whole rows and columns",
            "Adafactor trains over dp, pp and cp; over fsdp, which divides what an optimizer keeps, use adamw or lion.",
        ),
        ("attention", settings.attention == "triton", ("cp",), "there the mesh attends", "Use --attention sdpa."),
        ("kernels", settings.kernels == "triton", ("tp",), "norms are divided there", "Use --kernels torch."),
        ("precision", settings.precision == "fp16", ("pp",), "its loss is not scaled", "Over pp use bf16 or fp32."),
    ):  # fmt: skip
        for axis in refusing:
            if asked and getattr(axes, axis) > 1:
                value = getattr(settings, name)
                raise UserError(f"{axis}={getattr(axes, axis)} with {name} = {value!r}: {why}.", hint=hint)
    for axis in LLAMA_ONLY:
        if getattr(axes, axis) > 1:
            require_llama(settings, f"{axis}={getattr(axes, axis)}", hint="dp and fsdp train it.")
    if axes.pp > 1:
        choose_microbatches(-(-settings.batch_size // (axes.dp * axes.fsdp)), axes.pp)
    if axes.cp > 1 and settings.document_mask:
        raise packed_over_cp()
