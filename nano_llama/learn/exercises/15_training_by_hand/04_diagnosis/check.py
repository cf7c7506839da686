import numpy as np

from nano_llama.learn.checks import function_cases

WORDS = ("healthy", "start", "rate", "leak", "memorized", "order")


def make(rng, word, epochs=6, epoch=50, strength=1.0):
    """The traces of a run with this fault. strength: how much of it there is."""
    V, floor = int(rng.integers(40, 400)), float(rng.uniform(0.3, 1.2))
    t = np.linspace(0, 1, epochs * epoch)
    height = np.log(V) - floor
    honest = floor + 0.25 + (height - 0.25) * np.exp(-t / 0.08) + 0.3 * np.exp(-t / 0.002)
    seen = honest - 0.05  # the training loss
    if word == "start":
        bump = 1.2 * strength * np.exp(-t / 0.002)
        honest, seen = honest + bump, seen + bump
    if word == "leak":
        honest = seen = 0.3 * floor / strength + (np.log(V) - 0.3 * floor / strength) * np.exp(-t / 0.12)
    if word == "rate":
        climb = 0.6 * strength * np.clip((t - 0.5) / 0.03, 0, 1)
        honest, seen = honest + climb, seen + climb
    if word == "memorized":
        late = np.clip((t - 0.4) / 0.6, 0, 1)
        honest, seen = honest + 0.25 * strength * late, seen - 0.1 * late
    if word == "order":
        place = np.arange(epochs * epoch) % epoch / epoch
        phase = rng.uniform(0, 2 * np.pi)
        seen = seen + 0.2 * strength * np.sign(np.sin(2 * np.pi * 2 * place + phase))
    training = seen + 0.05 * rng.standard_normal(len(t))
    training[0] = seen[0] + 0.02 * rng.standard_normal()
    at = np.linspace(0, len(t) - 1, 21).astype(int)[1:]
    validation = honest[at] + 0.01 * rng.standard_normal(20)
    return {"training": training, "validation": validation, "V": V, "floor": floor, "epoch": epoch}


def ended(rng):
    inputs = make(rng, "healthy")
    inputs["training"][140:] = np.nan
    inputs["validation"][10:] = np.nan
    return inputs


def slow(rng):
    """A run that has not ended: both losses are still high, and fall."""
    inputs = make(rng, "healthy")
    t = np.linspace(0, 1, 300)
    inputs["training"] = np.log(inputs["V"]) * (1 - 0.1 * t) + 0.05 * rng.standard_normal(300)
    inputs["validation"] = np.log(inputs["V"]) * (1 - 0.1 * t[14::15]) + 0.01 * rng.standard_normal(20)
    return inputs


def cases(seed):
    """The right word is known from how a trace was made."""
    for number, word in enumerate(WORDS):
        for stage, seeds, options in (
            ("smallest", (7, number), {}),
            ("random", (seed, number), {"epochs": 5, "epoch": 80, "strength": 1.3}),
            ("random", (seed, number, 1), {"epochs": 8, "epoch": 60, "strength": 2.0}),
        ):
            inputs = make(np.random.default_rng(seeds), word, **options)
            label = f"trace {number + 1}" if stage == "smallest" else f"a trace, {word}, {options['epochs']} epochs"
            yield from one(stage, label, inputs, word, seed)
    yield from one("edge", "it ends in NaN", ended(np.random.default_rng(3)), "rate", 0)
    yield from one("edge", "it was stopped early", slow(np.random.default_rng(4)), "healthy", 0)


def one(stage, label, inputs, word, seed):
    options = {"expected": lambda **given: word, "small": [], "random": [], "seed": seed}
    for case in function_cases("diagnose", make, edges={label: inputs}, **options):
        yield type(case)(**{**vars(case), "stage": stage, "seed": seed if stage == "random" else 0})
