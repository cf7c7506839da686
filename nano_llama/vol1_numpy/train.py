"""Training by hand: forward, backward, clipping, update. The same flags, files and batches as Volume 2's trainer.

Not here: the loop around the step with its budget, schedule, metrics and checkpoints (training/loop.py, shared by
both volumes); the model (model.py); the update rules (optim/). Tests: tests/vol1/test_vol1_train.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.names import parameter_shapes
from nano_llama.core.sampling import SamplingParams
from nano_llama.training.loop import Batch, TrainingLoop
from nano_llama.training.watchdog import StepResult
from nano_llama.vol1_numpy.generate import generate
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.optim import EMA, OPTIMIZERS, clip_by_global_norm, global_norm, make_optimizer

# Names among the training tensors, where the model that is saved is an average.
TRAINED = "trained."  # the weights themselves
EMA_STEPS = "ema.steps"


def gradient(model: Llama, batches: Sequence[Batch], **options: Any) -> tuple[float, dict[str, Array]]:
    """The mean loss over all counted targets of `batches`, nats a token, and its gradient {name: array}.

    batches: (tokens, targets), each (B,T); several are gone through one after the other, their gradients summed.
    options: z_loss and recompute of `Llama.loss_and_grads`.
    """
    tokens, targets = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))  # (accumulate * B, T)
    rows_at_once = -(-len(batches[0][0]) // model.threads) if len(batches) > 1 else None
    return model.loss_and_grads(tokens, targets, micro_batch=rows_at_once, **options)


class Trainer(TrainingLoop):
    """`Trainer(settings, out).fit()`: a run of Volume 1, as `nano-llama train --engine numpy` starts it."""

    def check_settings(self) -> None:
        if self.settings.engine != "numpy":
            raise UserError(f"engine = {self.settings.engine!r}: this is the trainer of the engine 'numpy'.")
        if self.settings.device not in ("auto", "cpu"):
            raise UserError(
                f"device = {self.settings.device!r}: Volume 1 computes in NumPy, on the CPU.",
                hint="Use --engine torch for a GPU.",
            )
        if self.settings.precision not in ("auto", "fp32"):
            raise UserError(
                f"precision = {self.settings.precision!r}: NumPy has no fast products but fp32's.",
                hint="Leave it out, or use --engine torch.",
            )
        if self.settings.dropout:
            raise UserError(f"dropout = {self.settings.dropout:g}: Volume 1's LLaMA has none.", hint="--engine torch.")
        if not self.settings.attend_across:
            raise UserError("attend_across = false: Volume 1's attention has no such mask.", hint="Use --engine torch.")
        if self.settings.recompute == "selective":
            raise UserError("recompute = 'selective': Volume 1 recomputes a layer as a whole.", hint="--recompute full")
        if self.settings.optimizer not in OPTIMIZERS:
            raise UserError(
                f"optimizer = {self.settings.optimizer!r}: Volume 1 does not have it.", hint="Use --engine torch."
            )
        if self.settings.compile == "on":
            raise UserError("compile = 'on': Volume 1 has nothing to compile.", hint="Use --engine torch.")

    def build(self, config: LlamaConfig, weights: Mapping[str, np.ndarray] | None) -> None:
        settings = self.settings
        if weights is None:
            params = init_params(config, settings.seed)
        else:
            params = {name: np.array(weights[name], np.float32) for name in parameter_shapes(config)}
        self.model = Llama(config, params, threads=settings.num_threads or None)
        self.grads: dict[str, Array] = {}  # the step's, until it is made
        betas = {} if settings.optimizer == "adafactor" else {"betas": (settings.beta1, settings.beta2)}
        self.optimizer = make_optimizer(
            settings.optimizer, params, settings.lr, weight_decay=settings.weight_decay, **betas
        )
        self.average = EMA(params, settings.ema) if settings.ema else None
        self.judged = self.model  # what is evaluated, and what samples come from
        if self.average:
            self.judged = Llama(config, self.average.params, threads=settings.num_threads or None)

    def gradient(self, batches: Sequence[Batch]) -> StepResult:
        loss, self.grads = gradient(
            self.model, batches, z_loss=self.settings.z_loss, recompute=self.settings.recompute == "full"
        )
        return StepResult(loss, global_norm(self.grads))

    def update(self, lr: float) -> None:
        if self.settings.clip:
            clip_by_global_norm(self.grads, self.settings.clip)
        self.optimizer.step(self.model.params, self.grads, lr)
        if self.average:
            self.average.update(self.model.params)
        self.forget()

    def forget(self) -> None:
        self.grads = {}

    def sum_nats(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        return self.judged.loss(tokens, targets) * int(np.count_nonzero(targets != IGNORE_INDEX))

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        return generate(self.judged, prompt_ids, params, use_cache=self.config.rope_kind != "dynamic")

    def weights(self) -> Mapping[str, np.ndarray]:
        return self.judged.params

    def training_tensors(self) -> Mapping[str, np.ndarray]:
        tensors = self.optimizer.state_dict()
        if self.average:
            trained = {f"{TRAINED}{name}": param for name, param in self.model.params.items()}
            tensors = {**tensors, **trained, EMA_STEPS: np.array(self.average.steps, np.int64)}
        return tensors

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        if self.average:
            self.average.steps = int(tensors[EMA_STEPS])
            for name, param in self.model.params.items():
                np.copyto(param, tensors[f"{TRAINED}{name}"])
        kept = {name: tensors[name] for name in tensors if not name.startswith(TRAINED) and name != EMA_STEPS}
        self.optimizer.load_state_dict(kept)

    def computing(self) -> AbstractContextManager:
        """Matrix products outside the model's own threads (Muon's, a batch of one row) use as many threads."""
        return threadpool_limits(self.settings.num_threads or None, user_api="blas")
