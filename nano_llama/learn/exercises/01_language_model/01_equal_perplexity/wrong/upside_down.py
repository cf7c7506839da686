# stage: smallest | says: The exponent is upside down: fewer tokens must carry more nats each.
import math

import numpy as np


def bits_per_byte(nats, num_bytes):
    return float(np.sum(nats)) / (math.log(2) * num_bytes)


def equal_perplexity(perplexity, tokens, other_tokens):
    return perplexity ** (other_tokens / tokens)
