# stage: smallest | says: The last layer is the first to go back.
def chain_backward(layers, x, dy, every):
    kept = {}  # inputs, by place
    for place, layer in enumerate(layers):
        if place % every == 0:
            kept[place] = x
        x, _ = layer.forward(x)
    for start in reversed(sorted(kept)):
        x, caches = kept.pop(start), []
        for layer in layers[start : start + every]:
            x, cache = layer.forward(x)
            caches.append(cache)
        for layer in layers[start : start + every]:
            dy = layer.backward(dy, caches.pop(0))
    return dy
