import numpy as np


def bits_per_byte(nats, num_bytes):
    """nats: (n,) losses of the tokens   num_bytes: an integer   -> a number"""
    ...


def equal_perplexity(perplexity, tokens, other_tokens):
    """-> the other model's perplexity, a number"""
    ...
