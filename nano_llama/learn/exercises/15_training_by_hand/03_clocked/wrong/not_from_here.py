# stage: smallest | says: The line begins anew from the peak each time, so the rate jumps where the end moves. Go on from the last rate.
def clocked(step, seconds, clock, peak):
    start = before = now = clock()
    end, longest, rate, rates = start + seconds, 0.0, peak, []
    while now < end:
        rate = peak * (end - now) / (end - start)
        step(rate)
        rates.append(rate)
        before, now = now, clock()
        longest = max(longest, now - before)
        end = start + seconds - longest
    return rates
