# stage: smallest | says: The rate does not fall.
def clocked(step, seconds, clock, peak):
    start = before = now = clock()
    end, longest, rate, rates = start + seconds, 0.0, peak, []
    while now < end:
        step(rate)
        rates.append(rate)
        before, now = now, clock()
        longest = max(longest, now - before)
        end = start + seconds - longest
    return rates
