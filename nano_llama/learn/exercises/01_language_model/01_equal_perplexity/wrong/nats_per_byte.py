# stage: smallest | says: These are nats per byte: a bit is ln 2 nats.
import math

import numpy as np


def bits_per_byte(nats, num_bytes):
    return float(np.sum(nats)) / num_bytes


def equal_perplexity(perplexity, tokens, other_tokens):
    return perplexity ** (tokens / other_tokens)
