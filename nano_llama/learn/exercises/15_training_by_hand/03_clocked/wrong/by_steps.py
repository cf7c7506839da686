# stage: smallest | says: This counts steps, as if all took as long as the first.
def clocked(step, seconds, clock, peak):
    start = before = now = clock()
    end, longest, rate, rates = start + seconds, 0.0, peak, []
    while now < end:
        if len(rates) == 1:
            first = now - start
        rate = peak * (1 - len(rates) * first / (seconds - first)) if rates else peak
        step(rate)
        rates.append(rate)
        before, now = now, clock()
        longest = max(longest, now - before)
        end = start + seconds - longest
    return rates
