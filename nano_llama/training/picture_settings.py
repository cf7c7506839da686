"""The settings of runs on pictures, which are part of every TrainSettings, and what such runs cannot honour.

Tests: tests/training/test_pictures.py.
"""

from dataclasses import dataclass
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.core.lora import LoraConfig
from nano_llama.data.vqa import TASKS, ShapesVQA
from nano_llama.training.setting_fields import Section, sections

PICTURES = ShapesVQA.name  # what `data` says
IMAGES = Section("Images", "For --data shapes-vqa: the LLaMA of --init-from learns to answer questions about pictures.")


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """For `data` shapes-vqa alone."""

    encoder: str | None = IMAGES.setting(
        None, "shape of a new image encoder: tiny or nano (default: nano, or that of init-from)"
    )
    tasks: str = IMAGES.setting(
        ",".join(TASKS), "what the pictures show, separated by commas, in equal shares; named twice: two shares"
    )
    single_first: int = IMAGES.setting(
        0, "pictures of single shapes alone, before all tasks: a short run learns these first", least=0
    )
    language_model_lr: float = IMAGES.setting(
        0.1, "learning rate of the pretrained LLaMA, as a fraction of lr; 0: frozen", least=0
    )
    language_model_rank: int = IMAGES.setting(
        0, "freeze the LLaMA, and train LoRA factors of this rank beside its matrices; 0: no factors",
        least=0, most=4096,
    )  # fmt: skip
    freeze_encoder: bool = IMAGES.setting(False, "train the projector, and not the encoder before it")

    @property
    def from_pictures(self) -> bool:
        """Whether the data, which is a setting of every run, are pictures with questions (data/vqa)."""
        return getattr(self, "data", None) == PICTURES

    @property
    def lora(self) -> LoraConfig | None:
        """The adapter that is trained in place of the LLaMA's weights; None: they are, or they are frozen."""
        return LoraConfig(r=self.language_model_rank) if self.language_model_rank else None

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.tasks.split(","))


IMAGE_NAMES = tuple(sections(PictureSettings)[IMAGES])


def check_pictures(settings: Any) -> None:
    """Raise UserError for settings of images where there are none, and for those that a run on pictures cannot have.

    settings: a TrainSettings.
    """
    if not settings.from_pictures:
        for name in IMAGE_NAMES:
            if getattr(settings, name) != getattr(PictureSettings, name):
                raise UserError(
                    f"{name} = {getattr(settings, name)!r} is for --data {PICTURES}, not {settings.data!r}.",
                    hint=f"Leave {name} out.",
                )
        return
    for name, fits, hint in (
        ("init_from", settings.init_from is not None, "Give the LLaMA that learns to see:  --init-from nano_gpt"),
        ("engine", settings.engine == "torch", "Volume 2 trains it:  --engine torch"),
        ("epochs", settings.epochs is None, "The pictures do not end: give --max-minutes or --max-steps."),
        ("document_mask", not settings.document_mask, "A row holds one picture: leave it out."),
        ("execution", settings.execution == "eager", "Batches differ in shape: leave it out."),
        ("attention", settings.attention != "triton", "Our kernels are for text alone: leave it out."),
        ("kernels", settings.kernels == "torch", "Our kernels are for text alone: leave it out."),
        ("mesh", settings.mesh is None, "It runs in one process: leave it out."),
        (
            "language_model_rank",
            not settings.language_model_rank or settings.language_model_lr > 0,
            "Factors learn at language_model_lr, which is 0: raise it, or leave the rank out.",
        ),
        ("sample_prompt", settings.sample_prompt is None, "Samples are answers about pictures: leave it out."),
    ):
        if not fits:
            raise UserError(f"{name} = {getattr(settings, name)!r} with data = {settings.data!r}.", hint=hint)
