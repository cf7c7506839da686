# stage: smallest | says: What a stretch begins with is the input of its first layer.
def chain_backward(layers, x, dy, every):
    kept = {}  # inputs, by place
    for place, layer in enumerate(layers):
        if place % every == 0:
            kept[place] = layer.forward(x)[0]
        x, _ = layer.forward(x)
    for start in reversed(sorted(kept)):
        x, caches = kept.pop(start), []
        for layer in layers[start : start + every]:
            x, cache = layer.forward(x)
            caches.append(cache)
        for layer in reversed(layers[start : start + every]):
            dy = layer.backward(dy, caches.pop())
    return dy
