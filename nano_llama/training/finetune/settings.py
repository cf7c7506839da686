"""FinetuneSettings: the settings of a training run, with those of adapters and examples, and defaults that suit them.

Tests: tests/training/finetune/test_settings.py.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from nano_llama.core.errors import UserError
from nano_llama.core.lora import LAYER_TARGETS, LoraConfig
from nano_llama.tokenizer.conversation import RESERVED
from nano_llama.training.setting_fields import Section
from nano_llama.training.settings import BATCH, COMPUTE, DATA, LENGTH, LENGTHS, REPORTS, UPDATE, TrainSettings

DEFAULT_EPOCHS = 2.0  # a skill is there before the first ends, a harder one or a smaller model needs more
PACKED_ROWS, ROWS = 1, 8  # a few examples an update either way: a few hundred examples are few updates as it is
ADAPTER_LR, FULL_LR = 1e-3, 1e-4  # an adapter begins at zero and has few parameters: it needs, and bears, far more

_KWARGS = """Write it like this:  --chat-template-kwargs '{"enable_thinking": false}'"""

METHOD = Section("Method", "What is trained: an adapter beside the frozen weights (small, quick), or all weights.")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TrainSettings):
    """Every setting of a fine-tuning run. `init_from` is the model that it begins with.

    >>> FinetuneSettings(data="chats.jsonl", init_from="nano_gpt", adapter="dora").lora.dora
    True
    """

    command: ClassVar[str] = "finetune"
    from_examples: ClassVar[bool] = True

    method: str = METHOD.setting("sft", "sft: learn to answer as the examples do", choices=("sft",))
    adapter: str = METHOD.setting(
        "lora", "lora, dora (lengths and directions of rows apart), or none: all weights are trained",
        choices=("lora", "dora", "none"),
    )  # fmt: skip
    rank: int = METHOD.setting(8, "r, rank of the adapter's matrices", least=1, most=4096)
    alpha: float = METHOD.setting(16.0, "strength of the adapter, which is scaled by alpha / rank", above=0)
    rslora: bool = METHOD.setting(False, "scale by alpha / sqrt(rank), so that high ranks do not fade")
    target_modules: str = METHOD.setting(
        ",".join(LAYER_TARGETS), "matrices that get an adapter, separated by commas; lm_head can be added"
    )
    lora_dropout: float = METHOD.setting(
        0.0, "fraction of the adapter's inputs set to 0 in training", least=0, most=0.9
    )
    base_quantization: str | None = METHOD.setting(
        None, "int8 or int4: the frozen weights in a quarter or an eighth of the memory (QLoRA)",
        choices=("int8", "int4"),
    )  # fmt: skip

    init_from: str | None = DATA.setting(None, "the model to fine-tune: a folder, a .gguf or a hub name")
    data: str = DATA.setting("", "examples: a .jsonl or .txt file, or a folder with train.jsonl and val.jsonl")
    chat_template_kwargs: str | None = DATA.setting(
        None, 'variables of the chat template, as JSON, for example {"enable_thinking": false}'
    )
    leave_out_long: bool = DATA.setting(False, "leave out examples whose answer does not fit, instead of refusing them")

    max_minutes: float | None = LENGTH.setting(None, "wall time of the whole process, report included", above=0)
    epochs: float | None = LENGTH.setting(
        None, f"number of passes over the examples (default: {DEFAULT_EPOCHS:g}, unless minutes or steps are given)",
        above=0,
    )  # fmt: skip

    batch_size: int = BATCH.setting(  # None until __post_init__, as lr
        None, f"B, rows per forward pass (default: {PACKED_ROWS}, of several examples; {ROWS} without packing)", least=1
    )
    context: int = BATCH.setting(512, "T, tokens per row; an example must fit", least=1)
    packing: bool | None = BATCH.setting(
        None, "several examples share a row, each attends within itself (default: yes; engine numpy: no)"
    )

    lr: float = UPDATE.setting(
        None, f"peak learning rate (default: {ADAPTER_LR:g}; without an adapter {FULL_LR:g})", above=0
    )
    warmup: float = UPDATE.setting(
        0.1, "fraction of the run in which lr rises from 0: early gradients mislead", least=0, most=1
    )
    weight_decay: float = UPDATE.setting(0.0, "decoupled weight decay of the matrices; norms are exempt", least=0)

    compile: str = COMPUTE.setting(
        "off", "torch.compile: on or off; auto: on if the run is long enough to gain from it",
        choices=("auto", "on", "off"),
    )  # fmt: skip

    log_every: int = REPORTS.setting(1, "steps per line of metrics.jsonl", least=1)
    evaluations: int = REPORTS.setting(
        4, "number of validation losses, spread evenly over the run, the last at its end; 0: none", least=0
    )
    samples: int = REPORTS.setting(3, "validation prompts that are answered at each evaluation", least=0)
    sample_temperature: float = REPORTS.setting(0.0, "temperature of the samples; 0: greedy", least=0)
    held_out: str = REPORTS.setting(
        "stdlib", "general text (as for train --data) on which report.md shows what was forgotten; none: it does not"
    )

    def __post_init__(self) -> None:
        if self.from_pictures:
            raise UserError(
                f"data = {self.data!r}: fine-tuning learns from examples of text.",
                hint=f"From pictures a model learns with  nano-llama train --data {self.data} --init-from MODEL",
            )
        if all(getattr(self, name) is None for name in LENGTHS):
            object.__setattr__(self, "epochs", DEFAULT_EPOCHS)
        if self.lr is None:
            object.__setattr__(self, "lr", FULL_LR if self.adapter == "none" else ADAPTER_LR)
        if self.packing is None:
            object.__setattr__(self, "packing", self.engine == "torch")
        if self.batch_size is None:
            object.__setattr__(self, "batch_size", PACKED_ROWS if self.packing else ROWS)
        super().__post_init__()
        if self.document_mask and not self.packing:
            raise UserError(
                "document_mask = True: an example that has a row to itself needs none.", hint="Use --packing."
            )
        object.__setattr__(self, "document_mask", self.packing)
        if not self.init_from:
            raise UserError("No model to fine-tune.", hint="Give --model: a folder, a .gguf or a hub name.")
        assert self.template_variables is not None, "anything but a JSON object is refused here"
        if self.adapter == "none":
            self._check_no_adapter()
        else:
            assert self.lora, "an impossible adapter is refused here"

    def _check_no_adapter(self) -> None:
        """A setting of an adapter that there is not would do nothing."""
        given: dict[str, Any] = {"base_quantization": self.base_quantization, "rslora": self.rslora}
        for name, value in (given | {"lora_dropout": self.lora_dropout}).items():
            if value:
                raise UserError(
                    f"{name} = {value!r} is for an adapter, and adapter = 'none'.",
                    hint=f"Leave {name} out, or use --adapter lora.",
                )

    def to_json(self) -> dict[str, Any]:
        """As train.json holds it; document_mask is left out, which packing decides."""
        return {name: value for name, value in super().to_json().items() if name != "document_mask"}

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults, also from those that follow from others."""
        plain: dict[str, Any] = {
            "data": self.data,
            "init_from": self.init_from,
            "adapter": self.adapter,
            "engine": self.engine,
        }
        usual = type(self)(**plain).to_json()
        return {name: value for name, value in super().changed.items() if name in plain or value != usual[name]}

    @property
    def template_variables(self) -> dict[str, Any]:
        text = self.chat_template_kwargs
        try:
            values = json.loads(text) if text is not None else {}
        except (ValueError, RecursionError) as error:
            raise UserError(f"chat_template_kwargs = {text!r:.80} is not JSON ({error}).", hint=_KWARGS) from error
        if not isinstance(values, dict):
            raise UserError(f"chat_template_kwargs = {text!r:.80} is not a JSON object.", hint=_KWARGS)
        for name in values.keys() & {*RESERVED}:
            raise UserError(f"chat_template_kwargs names {name!r}, which the data set.", hint="Leave it out.")
        return values

    @property
    def lora(self) -> LoraConfig | None:
        if self.adapter == "none":
            return None
        return LoraConfig(
            r=self.rank, alpha=self.alpha, rslora=self.rslora, dora=self.adapter == "dora",
            target_modules=tuple(name.strip() for name in self.target_modules.split(",")), dropout=self.lora_dropout,
        )  # fmt: skip
