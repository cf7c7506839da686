import numpy as np

from nano_llama.learn.checks import function_cases


def losses(rng, tokens, num_bytes):
    return {"nats": rng.exponential(2.0, tokens), "num_bytes": num_bytes}


def lengths(rng, tokens, other_tokens):
    return {"perplexity": round(float(rng.uniform(2, 40)), 1), "tokens": tokens, "other_tokens": other_tokens}


def through_nats(perplexity, tokens, other_tokens):
    nats = tokens * np.log(perplexity)
    return float(np.exp(nats / other_tokens))


def cases(seed):
    yield from function_cases(
        "bits_per_byte",
        losses,
        small=[{"tokens": 1, "num_bytes": 1}, {"tokens": 2, "num_bytes": 3}, {"tokens": 3, "num_bytes": 3}],
        random=[{"tokens": 7, "num_bytes": 30}, {"tokens": 50, "num_bytes": 201}],
        seed=seed,
    )
    yield from function_cases(
        "equal_perplexity",
        lengths,
        small=[{"tokens": 1, "other_tokens": 1}, {"tokens": 1, "other_tokens": 2}, {"tokens": 3, "other_tokens": 2}],
        random=[{"tokens": 1000, "other_tokens": 700}, {"tokens": 30, "other_tokens": 110}],
        seed=seed,
        expected=through_nats,
        edges={"a model that is certain": {"perplexity": 1.0, "tokens": 5, "other_tokens": 9}},
    )
