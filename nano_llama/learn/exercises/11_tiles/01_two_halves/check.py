import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, T, K):
    out1, out2 = rng.standard_normal((2, T, K))
    lse1, lse2 = rng.uniform(-1, 2, (2, T))
    return {"out1": out1, "lse1": lse1, "out2": out2, "lse2": lse2}


def by_logaddexp(out1, lse1, out2, lse2):
    lse = np.logaddexp(lse1, lse2)
    with np.errstate(invalid="ignore"):
        weights = [np.nan_to_num(np.exp(part - lse))[:, None] for part in (lse1, lse2)]
    return weights[0] * out1 + weights[1] * out2, lse


def cases(seed):
    large, one, none = (make(np.random.default_rng(3), T=2, K=2) for _ in range(3))
    large["lse1"], large["lse2"] = np.array([1000.0, -1000.0]), np.array([999.0, -1001.0])
    one["lse1"], one["out1"] = np.array([-np.inf, 0.5]), np.array([[0.0, 0.0], [1.0, 2.0]])
    none["lse1"] = none["lse2"] = np.array([-np.inf, 0.5])
    none["out1"] = none["out2"] = np.array([[0.0, 0.0], [1.0, 2.0]])
    yield from function_cases(
        "two_halves",
        make,
        small=[{"T": 1, "K": 1}, {"T": 1, "K": 2}, {"T": 2, "K": 3}],
        random=[{"T": 5, "K": 4}, {"T": 3, "K": 8}],
        seed=seed,
        expected=by_logaddexp,
        edges={"large ones": large, "one half saw nothing": one, "neither saw anything": none},
    )
