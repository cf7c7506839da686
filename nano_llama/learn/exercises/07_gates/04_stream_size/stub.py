import numpy as np


def stream_size(start, layers, D, F, sigma, scaled):
    """start: rms of the stream before the first MLP; sigma: spread of the fresh weights; scaled: a bool

    -> the rms of the stream after `layers` MLPs, a float
    """
    ...
    # return rms
