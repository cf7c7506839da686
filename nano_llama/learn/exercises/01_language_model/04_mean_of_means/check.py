import numpy as np

from nano_llama.learn.checks import test_cases


def joined(batches):
    return float(np.mean(np.concatenate(batches)))


def sums(batches):
    return sum(float(batch.sum()) for batch in batches) / sum(len(batch) for batch in batches)


def running(batches):
    mean, count = 0.0, 0
    for batch in reversed(batches):
        count += len(batch)
        mean += float(np.sum(batch - mean)) / count
    return mean


def mean_of_means(batches):
    return float(np.mean([batch.mean() for batch in batches]))


def short_last_dropped(batches):
    full = max(len(batch) for batch in batches)
    return joined(batches[:-1] if len(batches[-1]) < full and len(batches) > 1 else batches)


def padding_counted(batches):
    return sum(float(batch.sum()) for batch in batches) / (len(batches) * max(len(batch) for batch in batches))


def first_token_left_out(batches):
    return float(np.mean(np.concatenate(batches)[1:]))


def median(batches):
    return float(np.median(np.concatenate(batches)))


def cases(seed):
    yield from test_cases(
        "check_evaluate",
        sound={
            "one mean over all": (joined,),
            "sums, divided once": (sums,),
            "a running mean, last batch first": (running,),
        },
        faults={
            "the mean of the batches' means": (mean_of_means,),
            "a short last batch is dropped": (short_last_dropped,),
            "padding up to the longest batch is counted": (padding_counted,),
            "the very first token is left out": (first_token_left_out,),
            "the median": (median,),
        },
    )
