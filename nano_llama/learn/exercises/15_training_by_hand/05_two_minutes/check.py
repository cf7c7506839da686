import itertools
import math
import time

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.learn.checks import Case, Rejected, function_cases
from nano_llama.learn.play import play
from nano_llama.vol1_numpy import Llama

SECONDS = 120
MOST = 0.46  # nats per character
SPEECHES, HELD_BACK = 6000, 80
SIZES = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4}
B, T = 16, 64


class Toy:
    """A model whose gradient is given, and whose clock moves by a duration with every gradient."""

    def __init__(self, durations, grads, begin=0.0):
        self.durations, self.given, self.now = durations, grads, begin
        self.params = {"a": np.zeros(2), "b": np.zeros((1, 1))}
        self.seen = []  # the parameters, whenever a gradient was asked for
        self.losses = []

    def clock(self):
        return self.now

    def loss_and_grads(self, tokens, targets):
        number = len(self.seen)
        if number >= 400:
            raise Rejected("400 gradients, and it goes on: it was to end by the clock.")
        self.seen.append(np.concatenate([value.ravel() for value in self.params.values()]))
        self.now += self.durations[number % len(self.durations)]
        loss, size = self.given(number)
        if math.isfinite(loss + size):
            self.losses.append(loss)
        return loss, {"a": np.array([0.6 * size, -0.3 * size]), "b": np.array([[0.2 * size]])}

    def moves(self):
        """By how much every step moved each parameter, (steps, 3)."""
        now = np.concatenate([value.ravel() for value in self.params.values()])
        return np.abs(np.diff([*self.seen, now], axis=0))


def trained(module, model, batches, seconds, clock):
    function = getattr(module, "train", None)
    if function is None:
        raise Rejected("The file has no function 'train'.")
    losses = function(model, batches, seconds, clock)
    if not isinstance(losses, list):
        raise Rejected(f"train returned {type(losses).__name__}; expected a list of losses.")
    return losses


def toy_case(label, durations, seconds, holds, grads=lambda number: (3.0 - number / 1000, 1.0), begin=0.0):
    made = []

    def run(module):
        toy = Toy(durations, grads, begin)
        losses = trained(module, toy, itertools.repeat((np.zeros((2, 3), int),) * 2), seconds, toy.clock)
        made[:] = [toy]
        return {"updates": len(losses), "losses": np.array(losses), "moves": toy.moves()}

    def judged(outputs):
        toy = made[0]
        if toy.now > begin + seconds + 1e-9:
            return f"It ended {toy.now - begin - seconds:.2f} s late."
        if toy.now + max(durations) < begin + seconds - 1e-9:
            return f"It ended after {toy.now - begin:.2f} of {seconds} s, and another update would have fitted in."
        if outputs["losses"].tolist() != toy.losses:
            return "The list that is returned does not hold the losses of all updates."
        return holds(toy, outputs["moves"].max(axis=1))

    inputs = {"seconds": seconds, "durations of the updates": durations, "clock at the start": begin}
    return Case("random", label, run, 0, inputs, holds=judged)


def like_a_schedule(toy, moves):
    """With a gradient that stays the same, Adam moves every parameter by the rate."""
    top = moves.max()
    if not moves.any():
        return "The parameters do not move: is model.params changed in place, or a copy of it?"
    if moves[0] > 0.5 * top:
        return f"The first step is {moves[0] / top:.2f} of the longest; there is no warmup."
    if moves[-1] > 0.15 * top:
        return f"The last step is {moves[-1] / top:.2f} of the longest; the rate has not fallen."
    if np.argmax(moves) > 0.5 * len(moves):
        return "The rate is highest in the second half: the warmup takes too long."
    return None


def a_spike_passes(toy, moves):
    before, after = moves[55:59].mean(), moves[90:98].mean()
    if after < 0.2 * before:
        return f"Behind an enormous gradient the steps are {after / before:.3f} of those before it: clip it first."
    return None


def nothing_is_lost(toy, moves):
    if not np.isfinite(toy.moves()).all():
        return "Behind a gradient of NaN all parameters are NaN."
    if moves[60] > 0:
        return "A batch whose loss or gradient is not finite makes no update; the parameters moved."
    return None


def spike(number):
    return 3.0, (1e6 if number == 60 else 1.0)


def nan(number):
    return (math.inf, 1.0) if number == 60 else (3.0, math.nan if number == 80 else 1.0)


def counted(rng, V, rows, T):
    """A text in which each token says what comes next."""
    start, step = rng.integers(0, V, (rows, 1)), 1
    ids = (start + step * np.arange(T + 1)) % V
    return ids[:, :-1], ids[:, 1:]


class Ticking:
    """A model with a clock that moves by one second with every gradient."""

    def __init__(self, model):
        self.model, self.params, self.now = model, model.params, 0.0

    def clock(self):
        return self.now

    def loss_and_grads(self, tokens, targets):
        self.now += 1.0
        return self.model.loss_and_grads(tokens, targets)


def small_model_case():
    """A hundred updates of a Llama that fits into a hand."""
    V = 10
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=V, max_position_embeddings=8, **sizes)

    def run(module):
        model, rng = Ticking(Llama.init(config, seed=0, threads=1)), np.random.default_rng(0)
        batches = (counted(rng, V, 8, 8) for _ in itertools.count())
        trained(module, model, batches, 100.5, model.clock)
        return {"loss": float(model.model.loss(*counted(np.random.default_rng(1), V, 8, 8)))}

    def holds(outputs):
        if not outputs["loss"] < 1.6:
            return f"A small model, which is to learn to count, ends at {outputs['loss']:.2f} nats; it began at 2.3."
        return None

    return Case("edge", "a small model learns to count", run, 0, {"V": V}, holds=holds)


def adam_case(stage, label, rng, steps):
    grads = [{"w": rng.standard_normal((2, 2)), "b": rng.standard_normal(3)} for _ in range(steps)]
    grads = [{name: np.round(grad, 1) for name, grad in one.items()} for one in grads]
    start = {"w": np.ones((2, 2)), "b": np.zeros(3)}

    def run(module):
        params, state = {name: value.copy() for name, value in start.items()}, {}
        arrays = dict(params)
        function = getattr(module, "adam", None)
        if function is None:
            raise Rejected("The file has no function 'adam'.")
        counts = []
        for number, one in enumerate(grads):
            counts.append(
                function(params, {name: grad.copy() for name, grad in one.items()}, state, 0.1 / (1 + number))
            )
        if any(params[name] is not arrays[name] for name in arrays):
            raise Rejected(
                "adam puts new arrays into params; the model still holds the old ones. Change them in place."
            )
        if counts != list(range(1, steps + 1)):
            raise Rejected(f"adam returned {counts}; expected the number of steps so far, {list(range(1, steps + 1))}.")
        return params

    inputs = {"params": start, "grads of the steps": grads, "rates": [0.1 / (1 + number) for number in range(steps)]}
    return Case(stage, label, run, 0, inputs)


def rate_inputs(rng, percent, warmup):
    return {"progress": percent / 100, "peak": 0.5, "warmup": warmup / 100}


def clip_inputs(rng, limit):
    return {"grads": {"w": np.round(rng.standard_normal((2, 2)), 1), "b": np.array([3.0, -1.0])}, "limit": float(limit)}


def rate(progress, peak, warmup):
    return float(np.interp(progress, [0, warmup, 1], [0, peak, 0]))


def clipped(grads, limit):
    norm = float(np.linalg.norm(np.concatenate([grad.ravel() for grad in grads.values()])))
    return {name: grad * min(1.0, limit / norm) if norm else grad for name, grad in grads.items()}, norm


class Letters:
    """A play as numbers, in an order of the letters that belongs to the seed."""

    def __init__(self, seed):
        text, _ = play(1000 + seed, SPEECHES)
        held, nats = play(500_000 + seed, HELD_BACK)
        letters = sorted(set(text) | set(held))
        numbers = dict(zip(letters, np.random.default_rng(seed).permutation(len(letters)).tolist(), strict=True))
        self.V, self.floor = len(letters), nats / len(held)
        self.text, self.held = (np.array([numbers[letter] for letter in one]) for one in (text, held))

    def batches(self, seed):
        rng = np.random.default_rng((seed, 7))
        while True:
            at = rng.integers(0, len(self.text) - T, B)[:, None] + np.arange(T)
            yield self.text[at], self.text[at + 1]


def play_case(seed):
    """The parameters are judged here, on a text that train has not seen; what it says of them does not count.

    The clock counts the processor's time, so that other programs take nothing away.
    """

    def run(module):
        letters = Letters(seed)
        config = LlamaConfig(vocab_size=letters.V, max_position_embeddings=T, **SIZES)
        model, began = Llama.init(config, seed=seed, threads=1), time.process_time()
        params, shapes = model.params, {name: value.shape for name, value in model.params.items()}
        trained(module, model, letters.batches(seed), SECONDS, time.process_time)
        if time.process_time() - began > 1.2 * SECONDS + 5:
            raise Rejected(f"It took {time.process_time() - began:.0f} s; {SECONDS} were given.")
        if {name: value.shape for name, value in params.items()} != shapes or model.params is not params:
            raise Rejected("The parameters are not those of the model any more: other names, or other shapes.")
        rows = (len(letters.held) - 1) // T
        tokens, targets = (letters.held[start : start + rows * T].reshape(rows, T) for start in (0, 1))
        loss = Llama(config, {name: np.array(value) for name, value in params.items()}, threads=1).loss(tokens, targets)
        return {"loss": round(float(loss), 4), "floor": letters.floor}

    def holds(outputs):
        if outputs["loss"] <= MOST:
            return None
        return (
            f"On a play that the model has not seen, {outputs['loss']:.3f} nats per character are left; at most {MOST}"
            f" are asked for, and {outputs['floor']:.3f} are its entropy."
        )

    return Case("training", "a play", run, seed, {"B": B, "T": T, **SIZES}, holds=holds)


def cases(seed):
    points = [{"percent": percent, "warmup": 20} for percent in (60, 10, 20, 100)]
    edges = {"behind the end": {"progress": 1.03, "peak": 1.0, "warmup": 0.5}}
    yield from function_cases(
        "learning_rate", rate_inputs, small=points, random=[], seed=seed, expected=rate, edges=edges
    )
    yield from function_cases(
        "clip",
        clip_inputs,
        small=[{"limit": 100}, {"limit": 1}],
        random=[],
        seed=seed,
        expected=clipped,
        edges={"no gradient": {"grads": {"w": np.zeros(2)}, "limit": 1.0}},
    )
    yield adam_case("smallest", "adam, one step", np.random.default_rng(0), 1)
    yield adam_case("smallest", "adam, three steps", np.random.default_rng(1), 3)
    yield adam_case("random", "adam, twelve steps", np.random.default_rng((seed, 2)), 12)
    yield toy_case("train, equal updates", [1.0], 120.5, like_a_schedule)
    yield toy_case("train, uneven updates", [0.5, 2.0, 0.25], 90.0, like_a_schedule)
    yield toy_case("train, a clock that does not begin at zero", [0.5], 60.0, like_a_schedule, begin=5000.0)
    yield toy_case("train, an enormous gradient", [1.0], 120.5, a_spike_passes, spike)
    yield toy_case("train, a loss and a gradient that are not finite", [1.0], 120.5, nothing_is_lost, nan)
    yield small_model_case()
    yield play_case(seed)
