import numpy as np


def discounted(counts, q, d):
    """counts: (V,V)   q: (V,)   d: a number   -> P (V,V), whose rows add up to 1"""
    ...
