"""Training by hand: forward, backward, clipping, update. The same settings, files and batches as Volume 2's trainer.

The loop around the step (schedule, evaluations, checkpoints) is training/loop.py, shared by both volumes; the model is
model.py, the update rules are in optim/. Tests: tests/vol1/test_vol1_trainer.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.names import parameter_shapes
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.vision.config import ModelConfig
from nano_llama.data.batches import Batch
from nano_llama.training.backend import HostDevice, Notice, StepResult
from nano_llama.training.checkpoint_keys import EMA_STEPS, TRAINED, from_prefixed, join, split
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.optimizers import is_own, load_optimizer, taken
from nano_llama.training.preflight import check_memory, preflight
from nano_llama.training.settings import TrainSettings
from nano_llama.training.setup import set_up_run
from nano_llama.vol1_numpy.finetune import AdaptedLlama, apply_lora, merge_lora, with_adapter
from nano_llama.vol1_numpy.generate import generate
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.optim import EMA, OPTIMIZERS, Optimizer, clip_by_global_norm, global_norm

# Setting, of those that a run has -> what Volume 1 takes, why nothing else, and what to do instead.
HONOURED: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "mesh": ((None,), "Volume 1 computes in one process", "Use --engine torch."),
    "engine": (("numpy",), "this is the trainer of the engine 'numpy'", "Use Volume 2's trainer."),
    "device": (("auto", "cpu"), "Volume 1 computes in NumPy, on the CPU", "Use --engine torch for a GPU."),
    "precision": (("auto", "fp32"), "NumPy is fast in fp32 only", "Leave it out, or use --engine torch."),
    "dropout": ((0.0,), "Volume 1's LLaMA has no dropout", "Use --engine torch."),
    "packing": (
        (False,),
        "examples that share a row need a document mask, and Volume 1 trains without",
        "Leave it out: each example gets a row of its own. Or use --engine torch.",
    ),
    "document_mask": ((False,), "Volume 1 trains without such a mask", "Use --engine torch."),
    "lora_dropout": ((0.0,), "Volume 1's LLaMA has no dropout", "Use --engine torch."),
    "base_quantization": ((None,), "Volume 1 keeps its weights in fp32", "Use --engine torch."),
    "activation_checkpointing": (
        ("none", "full"),
        "Volume 1 recomputes whole layers",
        "Use --activation-checkpointing full.",
    ),
    "execution": (("eager",), "Volume 1 launches no kernels", "Use --engine torch."),
    "compile": (("auto", "off"), "Volume 1 has nothing to compile", "Use --engine torch."),
    "attention": (("auto",), "Volume 1 has an attention of its own", "Leave it out, or use --engine torch."),
    "kernels": (("torch",), "Volume 1 computes in NumPy", "Leave it out, or use --engine torch."),
}


def gradient(model: Llama, batches: Sequence[Batch], **options: Any) -> tuple[float, dict[str, Array]]:
    """The mean loss over all counted targets of `batches`, nats per token, and its gradient {name: array}.

    batches: (tokens, targets), each (B,T); several are processed one after the other, and their gradients summed.
    options: z_loss and recompute of `Llama.loss_and_grads`.
    """
    T = max(tokens.shape[1] for tokens, _ in batches)  # of examples, each batch is as wide as its longest
    tokens = np.concatenate([widened(tokens, T, 0) for tokens, _ in batches])  # (accumulate * B, T)
    targets = np.concatenate([widened(targets, T, IGNORE_INDEX) for _, targets in batches])
    rows_at_once = -(-len(batches[0][0]) // model.threads) if len(batches) > 1 else None
    return model.loss_and_grads(tokens, targets, micro_batch=rows_at_once, **options)


def widened(array: Array, T: int, fill: int) -> Array:
    """(B,t) -> (B,T). What is appended to a row changes nothing before it: attention looks back only."""
    return np.pad(array, ((0, 0), (0, T - array.shape[1])), constant_values=fill)


def Trainer(settings: TrainSettings, out: str | Path, **options: Any) -> TrainingLoop:
    """`Trainer(settings, out).fit()`: a run of Volume 1. options: those of `set_up_run`."""
    return set_up_run(NumpyBackend, settings, out, **options)


def optimizer_class(name: str) -> type[Optimizer]:
    """Of the table, or one's own. Raises UserError."""
    if is_own(name):
        return load_optimizer(name, Optimizer)
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer = {name!r}: Volume 1 does not have it.", hint="Use --engine torch.")
    return OPTIMIZERS[name]


# Narrower products take less time than BLAS's threads need to meet; beside busy programs these spin for one another.
MIN_WIDTH_FOR_THREADS = 512


class NumpyBackend:
    """The arithmetic of a run in NumPy: training/backend.py says what each method does.

    What is trained and saved is `model.trainable`: all parameters, or an adapter's. optimizer and average are of these.
    """

    def __init__(self, settings: TrainSettings, model: Llama, optimizer: Optimizer, average: EMA | None = None):
        self.settings, self.model, self.optimizer, self.average = settings, model, optimizer, average
        self.config = model.config
        self.expected = preflight(model.config, settings)
        # Matrix products outside the model's own threads: Muon's, and those of a batch of one row.
        blas = settings.num_threads or None if model.config.hidden_size >= MIN_WIDTH_FOR_THREADS else 1
        self.device = HostDevice(computing=partial(threadpool_limits, blas, user_api="blas"))
        self.grads: dict[str, Array] = {}  # between gradient and update
        self.eval_model = model  # what is evaluated, saved and sampled from
        if average and isinstance(model, AdaptedLlama):
            self.eval_model = AdaptedLlama(model.base, model.lora, average.params)
        elif average:
            self.eval_model = Llama(model.config, average.params, threads=model.threads)

    @staticmethod
    def check_settings(settings: TrainSettings) -> None:
        for name, (values, reason, hint) in HONOURED.items():
            value = getattr(settings, name, values[0])
            if value not in values:
                raise UserError(f"{name} = {value!r}: {reason}.", hint=hint)
        optimizer_class(settings.optimizer)

    @classmethod
    def create(
        cls, settings: TrainSettings, config: ModelConfig, weights: Mapping[str, np.ndarray] | None, notice: Notice,
        *, adapter: Mapping[str, np.ndarray] | None = None,
    ) -> "NumpyBackend":  # fmt: skip
        assert isinstance(config, LlamaConfig), "the settings have refused pictures"
        check_memory(preflight(config, settings), settings, HostDevice().available_memory())
        if weights is None:
            params = init_params(config, settings.seed)
        else:
            params = {name: np.array(weights[name], np.float32) for name in parameter_shapes(config)}
        model = Llama(config, params, threads=settings.num_threads or None)
        if settings.lora is not None:
            fresh = apply_lora(model, settings.lora, seed=settings.seed)
            model = fresh if adapter is None else with_adapter(model, settings.lora, adapter)
        rule = optimizer_class(settings.optimizer)
        betas = taken(rule, betas=(settings.beta1, settings.beta2))
        optimizer = rule(model.trainable, settings.lr, weight_decay=settings.weight_decay, **betas)
        return cls(settings, model, optimizer, EMA(model.trainable, settings.ema) if settings.ema else None)

    ahead = None  # it computes when it is asked

    def gradient(self, batches: Sequence[Batch]) -> StepResult:
        loss, self.grads = gradient(
            self.model, batches, z_loss=self.settings.z_loss, recompute=self.settings.activation_checkpointing == "full"
        )
        return StepResult(loss, global_norm(self.grads))

    def update(self, lr: float) -> None:
        if self.settings.clip:
            clip_by_global_norm(self.grads, self.settings.clip)
        self.optimizer.step(self.model.trainable, self.grads, lr)
        if self.average:
            self.average.update(self.model.trainable)
        self.zero_grad()

    def zero_grad(self) -> None:
        self.grads = {}

    def eval_loss_sum(
        self, tokens: np.ndarray, targets: np.ndarray, documents: np.ndarray | None = None, *images: np.ndarray
    ) -> float:
        assert documents is None and not images, "settings that pack rows, and pictures, are refused"
        return self.eval_model.loss(tokens, targets) * int(np.count_nonzero(targets != IGNORE_INDEX))

    def use_averaged_weights(self) -> AbstractContextManager:
        return nullcontext()  # `eval_model` is a model of its own

    def figures(self) -> dict[str, Any]:
        return {}

    @property
    def answer(self) -> None:
        return None  # runs on pictures are Volume 2's

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        model = self.eval_model
        if isinstance(model, AdaptedLlama) and model.lora.dora:
            model = merge_lora(model)  # else every token would measure the lengths of all rows anew
        return generate(model, prompt_ids, params, use_cache=self.config.rope_kind != "dynamic")

    def warm_up(self, batch: Batch) -> None:
        pass  # the first step is as fast as the others

    def weights(self) -> Mapping[str, np.ndarray]:
        return self.eval_model.trainable

    def training_tensors(self) -> Mapping[str, np.ndarray]:
        state = self.optimizer.state_dict()
        tensors = {new: state[old] for old, new in from_prefixed(state, self.model.trainable).items()}
        if self.average:
            tensors |= {join(name, TRAINED): tensor for name, tensor in self.model.trainable.items()}
            tensors[EMA_STEPS] = np.array(self.average.steps, np.int64)
        return tensors

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        for name, array in self.eval_model.trainable.items():
            np.copyto(array, weights[name])

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        if self.average:
            self.average.steps = int(tensors[EMA_STEPS])
            for name, tensor in self.model.trainable.items():
                np.copyto(tensor, tensors[join(name, TRAINED)])
        own = from_prefixed(self.optimizer.state_dict(), self.model.trainable)
        others = [name for name in tensors if name != EMA_STEPS and split(name)[1] != TRAINED]
        in_optimizer = {new: old for old, new in own.items()}
        self.optimizer.load_state_dict({in_optimizer.get(name, name): tensors[name] for name in others})
