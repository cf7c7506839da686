"""How far one distribution of the next token is from another, from their logits, in float64.

Tests: tests/verify/test_divergence.py.
"""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (..., V) -> log-probabilities (..., V), in float64."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL(reference || found), nats: logits (..., V), twice -> (...)."""
    return kl_of_log_probs(log_softmax(reference), log_softmax(found))


def kl_of_log_probs(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The same of log-probabilities."""
    return (np.exp(reference) * (reference - found)).sum(-1)
