def chain_backward(layers, x, dy, every):
    """layers: objects with forward(x) -> (y, cache) and backward(dy, cache) -> dx   every: layers in a stretch

    -> dx, the gradient at x, for the gradient dy at the end of the chain
    """
    ...
    # return dx
