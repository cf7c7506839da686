# stage: smallest | says: Perplexity is an exponential of nats per token: it does not scale with the number of tokens, its logarithm does.
import math

import numpy as np


def bits_per_byte(nats, num_bytes):
    return float(np.sum(nats)) / (math.log(2) * num_bytes)


def equal_perplexity(perplexity, tokens, other_tokens):
    return perplexity * (tokens / other_tokens)
