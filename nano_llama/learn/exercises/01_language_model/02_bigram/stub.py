import numpy as np


def bigram(documents, V):
    """documents: lists of integers in [0,V)   -> P (V,V), whose rows add up to 1"""
    ...
