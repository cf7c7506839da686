def root_decay(progress, peak, warmup, decay):
    """progress: 0 to 1, or a little beyond   peak: the largest rate   warmup, decay: parts of the run   -> the rate"""
    ...
    # return rate
