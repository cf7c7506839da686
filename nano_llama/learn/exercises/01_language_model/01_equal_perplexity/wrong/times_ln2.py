# stage: smallest | says: Nats become bits by dividing by ln 2: one nat is 1.44 bits.
import math

import numpy as np


def bits_per_byte(nats, num_bytes):
    return float(np.sum(nats)) * math.log(2) / num_bytes


def equal_perplexity(perplexity, tokens, other_tokens):
    return perplexity ** (tokens / other_tokens)
