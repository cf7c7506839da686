# stage: smallest | says: The next step may be as long as the longest so far, not only as the last one.
def clocked(step, seconds, clock, peak):
    start = before = now = clock()
    end, longest, rate, rates = start + seconds, 0.0, peak, []
    while now < end:
        rate *= (end - now) / (end - before)
        step(rate)
        rates.append(rate)
        before, now = now, clock()
        longest = now - before
        end = start + seconds - longest
    return rates
