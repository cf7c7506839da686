import numpy as np


def cautious(step, gradient):
    """step, gradient: one tensor each, of the same shape   -> the step that is taken, of that shape"""
    ...
    # return taken
