def check_decays(decays):
    """Raises AssertionError where decays(shapes) is wrong.

    shapes: {name: shape} of all parameters   decays(shapes): the names that weight decay applies to
    """
    ...
