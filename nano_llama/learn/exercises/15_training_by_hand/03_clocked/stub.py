def clocked(step, seconds, clock, peak):
    """step(rate): makes an update   seconds: of the whole run   clock(): the time, seconds   peak: the first rate

    -> the rates of all steps, a list
    """
    ...
    # return rates
