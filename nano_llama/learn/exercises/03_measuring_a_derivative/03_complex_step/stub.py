import numpy as np


def gradient(f, x):
    """f: array -> number, for complex arrays too   x: any shape, float64   -> the gradient, of x's shape"""
    ...
