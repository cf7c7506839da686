# stage: smallest | says: The pieces were collected from the end: turn them round.
def best_pieces(text, logp):
    longest = max(map(len, logp))
    best, start = [0.0], [None]
    for end in range(1, len(text) + 1):
        first = max(end - longest, 0)
        choices = [(best[i] + logp[text[i:end]], i) for i in range(first, end) if text[i:end] in logp]
        score, i = max(choices)
        best.append(score)
        start.append(i)
    pieces, end = [], len(text)
    while end:
        pieces.append(text[start[end] : end])
        end = start[end]
    return pieces
