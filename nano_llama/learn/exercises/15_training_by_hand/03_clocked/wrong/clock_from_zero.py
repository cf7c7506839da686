# stage: edge | says: The clock may begin anywhere: remember when the run began.
def clocked(step, seconds, clock, peak):
    before = now = clock()
    start = 0.0
    end, longest, rate, rates = start + seconds, 0.0, peak, []
    while now < end:
        rate *= (end - now) / (end - before)
        step(rate)
        rates.append(rate)
        before, now = now, clock()
        longest = max(longest, now - before)
        end = start + seconds - longest
    return rates
