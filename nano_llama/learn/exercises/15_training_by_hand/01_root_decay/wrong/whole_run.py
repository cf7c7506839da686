# stage: smallest | says: In the fall q runs from zero to one: divide by the length of the fall.
def root_decay(progress, peak, warmup, decay):
    if progress < warmup:
        return peak * progress / warmup
    fall = max(progress - (1 - decay), 0.0)
    return peak * (1 - min(fall, 1.0) ** 0.5)
