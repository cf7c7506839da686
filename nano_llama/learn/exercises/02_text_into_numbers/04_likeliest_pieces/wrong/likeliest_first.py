# stage: smallest | says: The likeliest next piece was taken each time; what it leaves for the rest matters as much.
def best_pieces(text, logp):
    pieces, start = [], 0
    while start < len(text):
        ends = [end for end in range(start + 1, len(text) + 1) if text[start:end] in logp]
        end = max(ends, key=lambda end: logp[text[start:end]])
        pieces.append(text[start:end])
        start = end
    return pieces
