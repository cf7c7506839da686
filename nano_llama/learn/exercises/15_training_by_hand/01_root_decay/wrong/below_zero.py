# stage: edge | says: Behind the end the rate is negative: the run would climb.
def root_decay(progress, peak, warmup, decay):
    if progress < warmup:
        return peak * progress / warmup
    fall = max(progress - (1 - decay), 0.0) / decay
    return peak * (1 - fall**0.5)
