import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, percent):
    return {"progress": percent / 100, "peak": 0.5, "warmup": 0.1, "decay": 0.4}


def anywhere(rng, part):
    """In the warmup, on the level, in the fall: part 0, 1, 2."""
    warmup, decay = rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.5)
    edges = (0.0, warmup, 1 - decay, 1.0)
    progress = float(rng.uniform(edges[part], edges[part + 1]))
    return {"progress": progress, "peak": float(rng.uniform(0.1, 2)), "warmup": float(warmup), "decay": float(decay)}


def interpolated(progress, peak, warmup, decay):
    """The square of what is lost grows in a straight line."""
    rise = np.interp(progress, [0.0, warmup], [0.0, 1.0]) if warmup else 1.0
    lost = np.sqrt(np.interp(progress, [1 - decay, 1.0], [0.0, 1.0]))
    return float(peak * (rise - lost))


def cases(seed):
    points = [{"percent": percent} for percent in (50, 5, 70, 90, 100)]
    edges = {
        "no warmup, at the start": {"progress": 0.0, "peak": 1.0, "warmup": 0.0, "decay": 0.5},
        "behind the end": {"progress": 1.02, "peak": 1.0, "warmup": 0.1, "decay": 0.5},
        "no level": {"progress": 0.4, "peak": 1.0, "warmup": 0.25, "decay": 0.75},
    }
    yield from function_cases(
        "root_decay", make, small=points, random=[], seed=seed, expected=interpolated, edges=edges
    )
    parts = [{"part": part} for part in (0, 1, 2, 2)]
    yield from function_cases("root_decay", anywhere, small=[], random=parts, seed=seed, expected=interpolated)
