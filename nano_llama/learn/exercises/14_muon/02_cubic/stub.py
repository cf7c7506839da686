import numpy as np


def orthogonal(matrix, tolerance):
    """matrix: (rows,columns), of full rank   tolerance: a number   -> X (rows,columns), rounds"""
    ...
    # return x, rounds
