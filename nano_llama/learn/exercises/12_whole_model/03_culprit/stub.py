def culprit(errors, tolerance):
    """errors: {tensor: relative error of its gradient}, in the order of the forward pass   tolerance: a number

    -> the tensor where the search should begin, or ""
    """
    ...
    # return name
