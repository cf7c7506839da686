# stage: smallest | says: Every character became a piece of its own; longer pieces may be likelier than their characters together.
def best_pieces(text, logp):
    return list(text)
