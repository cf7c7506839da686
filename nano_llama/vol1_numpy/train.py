"""Training by hand: forward, backward, clipping, update. The same flags, files and batches as Volume 2's trainer.

Not here: the loop around the step with its budget, schedule, metrics and checkpoints (core/training/loop.py, shared by
both volumes); the model (model.py); the update rules (optim/). Tests: tests/vol1/test_vol1_train.py.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
from threadpoolctl import threadpool_limits

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.core.names import parameter_shapes
from nano_llama.core.training.loop import Batch, StepResult, TrainingLoop
from nano_llama.vol1_numpy.model import IGNORE, Llama
from nano_llama.vol1_numpy.optim import Optimizer, clip_by_global_norm, global_norm, make_optimizer


def train_step(
    model: Llama, optimizer: Optimizer, batches: Sequence[Batch], lr: float, clip: float = 0.0
) -> StepResult:
    """One update from the mean gradient over all counted targets of `batches`.

    batches: (tokens, targets), each (B,T); several are gone through one after the other, their gradients summed.
    clip: the largest norm of the whole gradient; 0: off. Where the loss or the gradient is not finite, the weights stay
    as they were.
    """
    tokens, targets = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))  # (accumulate * B, T)
    rows_at_once = -(-len(batches[0][0]) // model.threads) if len(batches) > 1 else None
    loss, grads = model.loss_and_grads(tokens, targets, micro_batch=rows_at_once)
    norm = clip_by_global_norm(grads, clip) if clip > 0 else global_norm(grads)
    if math.isfinite(loss + norm):
        optimizer.step(model.params, grads, lr)
    return StepResult(loss, norm)


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
        if self.settings.compile == "on":
            raise UserError("compile = 'on': Volume 1 has nothing to compile.", hint="Use --engine torch.")

    def build(self, config: LlamaConfig, weights: Mapping[str, np.ndarray] | None) -> None:
        settings = self.settings
        if weights is None:
            params = init_params(config, settings.seed)
        else:
            params = {name: np.array(weights[name], np.float32) for name in parameter_shapes(config)}
        self.model = Llama(config, params, threads=settings.num_threads or None)
        self.optimizer = make_optimizer(
            settings.optimizer, params, settings.lr,
            betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay,
        )  # fmt: skip

    def train_step(self, batches: Sequence[Batch], lr: float) -> StepResult:
        return train_step(self.model, self.optimizer, batches, lr, self.settings.clip)

    def sum_nats(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        return self.model.loss(tokens, targets) * int(np.count_nonzero(targets != IGNORE))

    def weights(self) -> Mapping[str, np.ndarray]:
        return self.model.params

    def training_tensors(self) -> Mapping[str, np.ndarray]:
        return self.optimizer.state_dict()

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.optimizer.load_state_dict(tensors)

    def computing(self) -> AbstractContextManager:
        """Matrix products outside the model's own threads (Muon's, a batch of one row) use as many threads."""
        return threadpool_limits(self.settings.num_threads or None, user_api="blas")
