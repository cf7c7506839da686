"""A clock that is set by hand, and an engine for the training loop whose few lines can be seen through."""

import numpy as np

from nano_llama.core.init import init_params
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.watchdog import StepResult


class HandClock:
    """A clock that only goes on when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTrainer(TrainingLoop):
    """An engine whose update depends on weights, batch, learning rate and momentum, and on nothing else.

    Its loss falls with every step. `seconds` pass on a HandClock at every step, `evaluating` at every batch judged.
    """

    seconds = 0.1
    evaluating = 0.01

    def check_settings(self):
        pass

    def build(self, config, weights):
        source = init_params(config, self.settings.seed) if weights is None else weights
        self.params = {name: np.array(array) for name, array in source.items()}
        self.momentum = {name: np.zeros_like(array) for name, array in self.params.items()}

    def restore(self, tensors):
        self.momentum = {name: np.array(tensors[name]) for name in self.params}

    def gradient(self, batches):
        self.seen = np.float32(sum(float((tokens * targets).mean()) for tokens, targets, *_ in batches))
        self._pass(self.seconds)
        return StepResult(4.0 / (1 + self.step) + float(self.seen) * 1e-6, abs(float(self.seen)))

    def update(self, lr):
        for name, array in self.params.items():
            self.momentum[name] = np.float32(0.9) * self.momentum[name] + np.float32(1e-3) * self.seen * array
            array -= np.float32(lr) * self.momentum[name]

    def forget(self):
        pass

    def sum_nats(self, tokens, targets):
        self._pass(self.evaluating)
        return float(np.count_nonzero(targets != -100)) * np.log(self.config.vocab_size)

    def generate(self, prompt_ids, params):
        return iter([prompt_ids[-1]] * params.max_tokens)

    def weights(self):
        return self.params

    def training_tensors(self):
        return self.momentum

    def slowdown(self):
        return 1.0  # the real machine's does not belong to a clock set by hand

    def _pass(self, seconds):
        if isinstance(self.clock, HandClock):
            self.clock.now += seconds
