# stage: smallest | says: decay is the length of the fall, counted from the end.
def root_decay(progress, peak, warmup, decay):
    if progress < warmup:
        return peak * progress / warmup
    fall = max(progress - decay, 0.0) / (1 - decay)
    return peak * (1 - min(fall, 1.0) ** 0.5)
