def root_decay(progress, peak, warmup, decay):
    if progress < warmup:
        return peak * progress / warmup
    fall = max(progress - (1 - decay), 0.0) / decay
    return peak * (1 - min(fall, 1.0) ** 0.5)
