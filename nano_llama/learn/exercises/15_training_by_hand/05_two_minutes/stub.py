import math

import numpy as np


def learning_rate(progress, peak, warmup):
    """progress: 0 to 1, or beyond   warmup: part of the run, above 0 and below 1   -> the rate"""
    ...
    # return rate


def clip(grads, limit):
    """grads: {name: array}   limit: a number   -> clipped grads, the norm before (a float)"""
    ...
    # return grads, norm


def adam(params, grads, state, lr):
    """Change params in place.   state: a dict, {} before the first step   -> the number of steps so far"""
    ...
    # return steps


def train(model, batches, seconds, clock):
    """Train model.params for at most `seconds`.   -> losses, a list, one for each update"""
    ...
    # return losses
