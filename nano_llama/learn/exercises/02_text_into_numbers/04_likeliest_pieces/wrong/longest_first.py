# stage: smallest | says: The longest piece was taken each time; two likely short ones may beat a long unlikely one.
def best_pieces(text, logp):
    pieces, start = [], 0
    while start < len(text):
        end = next(end for end in range(len(text), start, -1) if text[start:end] in logp)
        pieces.append(text[start:end])
        start = end
    return pieces
