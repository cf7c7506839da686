"""A clock that is set by hand, and a backend for the training loop whose few lines can be seen through."""

from contextlib import nullcontext

import numpy as np
import pytest

from nano_llama.core.init import init_params
from nano_llama.training.backend import HostDevice, StepResult
from nano_llama.training.preflight import check_memory, preflight
from nano_llama.training.setup import set_up_run


class HandClock:
    """A clock that only goes on when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeBackend:
    """Its update depends on weights, batch, learning rate and momentum, and on nothing else. Its loss falls.

    If it has a HandClock, `seconds` pass at every gradient, `evaluating` at every evaluated batch.
    """

    clock = None
    seconds = 0.1
    evaluating = 0.01
    device = HostDevice()
    ahead = None
    answer = None

    @classmethod
    def check_settings(cls, settings):
        pass

    @classmethod
    def create(cls, settings, config, weights, notice, *, adapter=None):
        expected = preflight(config, settings)
        check_memory(expected, settings, cls.device.available_memory())
        return cls(config, init_params(config, settings.seed) if weights is None else weights, expected)

    def __init__(self, config, weights, expected):
        self.config, self.expected = config, expected
        self.params = {name: np.array(array) for name, array in weights.items()}
        self.momentum = {name: np.zeros_like(array) for name, array in self.params.items()}
        self.updates = 0

    def restore(self, tensors):
        self.momentum = {name: np.array(tensors[name]) for name in self.params}
        self.updates = int(tensors["updates"])

    def gradient(self, batches):
        self.seen = np.float32(sum(float((tokens * targets).mean()) for tokens, targets, *_ in batches))
        self._pass(self.seconds)
        return StepResult(4.0 / (1 + self.updates) + float(self.seen) * 1e-6, abs(float(self.seen)))

    def update(self, lr):
        for name, array in self.params.items():
            self.momentum[name] = np.float32(0.9) * self.momentum[name] + np.float32(1e-3) * self.seen * array
            array -= np.float32(lr) * self.momentum[name]
        self.updates += 1

    def zero_grad(self):
        pass

    def eval_loss_sum(self, tokens, targets):
        self._pass(self.evaluating)
        return float(np.count_nonzero(targets != -100)) * np.log(self.config.vocab_size)

    def use_averaged_weights(self):
        return nullcontext()

    def figures(self):
        return {"kernels": ["rope"]}

    def generate(self, prompt_ids, params):
        return iter([prompt_ids[-1]] * params.max_tokens)

    def warm_up(self, batch):
        pass

    def weights(self):
        return self.params

    def load_weights(self, weights):
        self.params = {name: np.array(weights[name]) for name in self.params}

    def training_tensors(self):
        return {**self.momentum, "updates": np.array(self.updates)}

    def _pass(self, seconds):
        if self.clock is not None:
            self.clock.now += seconds


def kill_after(trainer, step):
    """Fit until so many steps are done, and end as by a second Ctrl-C, which saves nothing."""
    update = trainer.backend.update

    def killed(lr):
        if trainer.state.step == step:
            raise KeyboardInterrupt
        update(lr)

    trainer.backend.update = killed
    with pytest.raises(BaseException, match="second Ctrl-C"):
        trainer.fit()


def stop_before(trainer, step, kind=BaseException):
    """Fit until so many steps are done, and end by an error of this kind, amid the loop."""
    stop = type("Stop", (kind,), {})
    train_step = trainer.train_step

    def stopping(batches, lr):
        if trainer.state.step == step:
            raise stop
        return train_step(batches, lr)

    trainer.train_step = stopping
    with pytest.raises(stop):
        trainer.fit()


def FakeTrainer(settings, out, *, engine=FakeBackend, changes=None, **options):
    """A run of FakeBackend, with `changes` {attribute: value}; time passes on `clock` if that is a HandClock."""
    clock = options.get("clock")
    attributes = {"clock": clock if isinstance(clock, HandClock) else None, **(changes or {})}
    return set_up_run(type("Engine", (engine,), attributes), settings, out, **options)
