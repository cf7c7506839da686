# stage: smallest | says: All caches are there at once; of each stretch they are made again when it is its turn.
def chain_backward(layers, x, dy, every):
    caches = []
    for layer in layers:
        x, cache = layer.forward(x)
        caches.append(cache)
    for layer in reversed(layers):
        dy = layer.backward(dy, caches.pop())
    return dy
