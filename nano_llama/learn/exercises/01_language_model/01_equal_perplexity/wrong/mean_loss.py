# stage: smallest | says: The mean loss is per token; a text's cost is the sum over its tokens.
import math

import numpy as np


def bits_per_byte(nats, num_bytes):
    return float(np.mean(nats)) / (math.log(2) * num_bytes)


def equal_perplexity(perplexity, tokens, other_tokens):
    return perplexity ** (tokens / other_tokens)
