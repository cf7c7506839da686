"""Answers to the exercises from chapter 7 on, written in another way than ours.

Used by tests/learn/test_right_answers.py.
"""

ANSWERS = {
    "geglu": """
C = math.sqrt(2 / math.pi)

def geglu_forward(gate, up):
    open_ = 1 / (1 + np.exp(-2 * C * (gate + 0.044715 * gate * gate * gate)))   # (1 + tanh u) / 2
    return gate * open_ * up, (gate, up, open_)

def geglu_backward(dy, cache):
    gate, up, open_ = cache
    inner = 2 * C * (1 + 0.134145 * gate * gate)
    return dy * up * (open_ + gate * open_ * (1 - open_) * inner), dy * gate * open_
""",
    "squared_relu": """
def squared_relu_forward(x, weight):
    z = np.einsum("nd,fd->nf", x, weight)
    return np.where(z > 0, z**2, 0), (x, weight, z)

def squared_relu_backward(dy, cache):
    x, weight, z = cache
    dz = np.where(z > 0, 2 * z * dy, 0)
    return np.einsum("nf,fd->nd", dz, weight), np.einsum("nf,nd->fd", dz, x)
""",
    "gate_moments": """
def gate_moments(spread):
    z = np.arange(-14, 14, 1e-3)
    p = np.exp(-z * z / 2)
    p /= p.sum()
    y = spread * z * 0.5 * (1 + np.tanh(spread * z / 2))
    return (p * y).sum(), (p * y * y).sum(), (p * (y - (p * y).sum()) ** 2).sum()
""",
    "stream_size": """
def stream_size(start, layers, D, F, sigma, scaled):
    z = np.arange(-14, 14, 1e-3)
    p = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    a = D**0.5 * sigma * z
    up = D * sigma**2
    total = start**2
    for _ in range(layers):
        total += (p * (a * 0.5 * (1 + np.tanh(a / 2))) ** 2).sum() * up * F * sigma**2 / (layers if scaled else 1)
    return math.sqrt(total)
""",
    "08_rotations/01_partial": """
def partial_rope_forward(x, cos, sin):
    n = cos.shape[1]
    z = (x[..., :n] + 1j * x[..., n : 2 * n]) * (cos + 1j * sin)
    y = np.concatenate((z.real, z.imag, x[..., 2 * n :]), axis=-1).astype(x.dtype)
    return y, (cos, sin)

def partial_rope_backward(dy, cache):
    return partial_rope_forward(dy, cache[0], -cache[1])[0]
""",
    "stacked_rows": """
def stacked_rows(weight, H, G, K):
    turned = weight[: (H + G) * K]
    moved = turned.reshape(H + G, 2, K // 2, -1).swapaxes(1, 2).reshape(turned.shape)
    return np.vstack((moved, weight[(H + G) * K :]))
""",
    "sliding_window": """
def slide(keys, dropped, frequencies):
    z = keys[:, : len(frequencies)] + 1j * keys[:, len(frequencies) :]
    z = z[dropped:] * np.exp(-1j * dropped * frequencies)
    return np.hstack((z.real, z.imag))
""",
    "rows_and_columns": """
def turn(x, frequencies, sign):
    y = np.empty_like(x)
    n = len(frequencies)
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            a = sign * np.concatenate((r * frequencies, c * frequencies))
            z = (x[r, c, ::2] + 1j * x[r, c, 1::2]) * np.exp(1j * a)
            y[r, c, ::2], y[r, c, 1::2] = z.real, z.imag
    return y

def grid_rope_forward(x, frequencies):
    return turn(x, frequencies, 1), frequencies

def grid_rope_backward(dy, frequencies):
    return turn(dy, frequencies, -1)
""",
    "09_attention/01_window": """
def window_mask(queries, keys, window):
    whole = np.tri(keys, dtype=bool) & ~np.tri(keys, k=-window, dtype=bool)
    return whole[keys - queries :]
""",
    "slopes": """
def sloped_forward(q, k, v, slope):
    out, rows = np.zeros_like(v), []
    for t in range(len(q)):
        z = np.array([q[t] @ k[s] / math.sqrt(q.shape[1]) - slope * (t - s) for s in range(t + 1)])
        p = (np.exp(z) / np.exp(z).sum()).astype(q.dtype)
        out[t] = p @ v[: t + 1]
        rows.append(p)
    return out, (q, k, v, rows)

def sloped_backward(dout, cache):
    q, k, v, rows = cache
    dq, dk, dv, dslope = 0 * q, 0 * k, 0 * v, 0.0
    for t, p in enumerate(rows):
        dp = v[: t + 1] @ dout[t]
        dz = p * (dp - p @ dp)
        dq[t] = dz @ k[: t + 1] / math.sqrt(q.shape[1])
        dk[: t + 1] += np.outer(dz, q[t]) / math.sqrt(q.shape[1])
        dv[: t + 1] += np.outer(p, dout[t])
        dslope -= dz @ np.arange(t, -1, -1)
    return dq, dk, dv, np.asarray(dslope, q.dtype)
""",
    "sink": """
def sink_forward(scores, v, sink):
    z = np.hstack((scores, np.full((len(scores), 1), sink, scores.dtype)))
    e = np.exp(z - z.max(axis=1, keepdims=True))
    P = e / e.sum(axis=1, keepdims=True)
    values = np.vstack((v, 0 * v[:1]))
    return P @ values, (P, values)

def sink_backward(dout, cache):
    P, values = cache
    dP = dout @ values.T
    dZ = P * (dP - (P * dP).sum(axis=1, keepdims=True))
    return dZ[:, :-1], (P.T @ dout)[:-1], dZ[:, -1].sum()
""",
    "causality_test": """
def check_causal(attend):
    rng = np.random.default_rng(5)
    for T in (5, 33):
        x = rng.standard_normal((3, T, 4))
        whole = attend(*x)
        for place in range(T):
            for which in range(3):
                y = x.copy()
                y[which, place:] = rng.standard_normal((T - place, 4))
                np.testing.assert_allclose(attend(*y)[:place], whole[:place], rtol=1e-6, atol=1e-8)
""",
    "cache_budget": """
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    blocks = math.floor(memory / (block * 2 * number_bytes * head_dim * kv_heads * layers))
    return int(block * blocks)
""",
    "share_heads": """
def share_heads(weight, H, G, K):
    R = H // G
    heads = [weight[h * K : (h + 1) * K] for h in range(H)]
    return np.vstack([sum(heads[g * R : (g + 1) * R]) / R for g in range(G)])
""",
    "head_gates": """
def gated_heads_forward(o, weight, gate):
    W = weight.reshape(len(weight), *o.shape[1:])
    return np.einsum("thk,dhk,h->td", o, W, gate), (o, W, gate)

def gated_heads_backward(dy, cache):
    o, W, gate = cache
    dW = np.einsum("td,thk,h->dhk", dy, o, gate).reshape(len(W), -1)
    return np.einsum("td,dhk,h->thk", dy, W, gate), dW, np.einsum("td,thk,dhk->h", dy, o, W)
""",
    "group_test": """
def check_groups(attend):
    rng = np.random.default_rng(1)
    for H, G in ((8, 2), (6, 3), (3, 3)):
        q, (k, v) = rng.standard_normal((H, 4, 5)), rng.standard_normal((2, G, 4, 5))
        out = attend(q, k, v)
        for h in range(H):
            g = h * G // H
            e = np.exp(q[h] @ k[g].T / 5**0.5)
            np.testing.assert_allclose(out[h], (e / e.sum(1)[:, None]) @ v[g], rtol=1e-6)
""",
    "two_halves": """
def two_halves(out1, lse1, out2, lse2):
    out, lse = np.zeros_like(out1), np.full(len(lse1), -np.inf)
    for t in range(len(out)):
        if max(lse1[t], lse2[t]) > -np.inf:
            lse[t] = np.logaddexp(lse1[t], lse2[t])
            out[t] = math.exp(lse1[t] - lse[t]) * out1[t] + math.exp(lse2[t] - lse[t]) * out2[t]
    return out, lse
""",
    "empty_beginning": """
def online(scores, values, block):
    lse, out = -math.inf, np.zeros(values.shape[1])
    for start in range(0, len(scores), block):
        s, v = scores[start : start + block], values[start : start + block]
        s, v = s[np.isfinite(s)], v[np.isfinite(s)]
        if len(s):
            both = np.logaddexp(lse, np.logaddexp.reduce(s))
            out = math.exp(lse - both) * out + np.exp(s - both) @ v
            lse = float(both)
    return out, lse
""",
    "fixed_parts": """
def decode(q, keys, values, size):
    n = -(-len(keys) // size)
    z = np.array([k @ q for k in keys]) / math.sqrt(q.size)
    lses = np.array([np.logaddexp.reduce(z[i * size : (i + 1) * size]) for i in range(n)])
    outs = np.array([np.exp(z[i * size : (i + 1) * size] - lses[i]) @ values[i * size : (i + 1) * size]
                     for i in range(n)])
    return outs, lses, np.exp(lses - np.logaddexp.reduce(lses)) @ outs
""",
    "11_tiles/04_flash": """
def flash_forward(q, k, v, block):
    out, lse = np.zeros_like(v), np.zeros(len(q), q.dtype)
    for t in range(len(q)):
        s = k[: t + 1] @ q[t] / math.sqrt(q.shape[1])
        m = s.max()
        e = np.exp(s - m)
        out[t], lse[t] = e @ v[: t + 1] / e.sum(), m + np.log(e.sum())
    return out, (q, k, v, out, lse)

def flash_backward(dout, cache):
    q, k, v, out, lse = cache
    dq, dk, dv = 0 * q, 0 * k, 0 * v
    for t in range(len(q)):
        p = np.exp(k[: t + 1] @ q[t] / math.sqrt(q.shape[1]) - lse[t])
        dz = p * (v[: t + 1] @ dout[t] - dout[t] @ out[t]) / math.sqrt(q.shape[1])
        dq[t] = dz @ k[: t + 1]
        dk[: t + 1] += dz[:, None] * q[t]
        dv[: t + 1] += p[:, None] * dout[t]
    return dq, dk, dv
""",
    "parallel_block": """
def parallel_forward(x, A, B):
    r = (np.einsum("nd,nd->n", x, x) / x.shape[1] + 1e-5) ** -0.5
    n = np.einsum("nd,n->nd", x, r.astype(x.dtype))
    left, right = np.tanh(np.einsum("nd,ed->ne", n, A)), np.einsum("nd,ed->ne", n, B)
    return x + left + np.where(right > 0, right, 0), (r.astype(x.dtype), n, left, right, A, B)

def parallel_backward(dy, cache):
    r, n, left, right, A, B = cache
    dl, dr = dy * (1 - left**2), np.where(right > 0, dy, 0)
    dn = np.einsum("ne,ed->nd", dl, A) + np.einsum("ne,ed->nd", dr, B)
    dx = dy.copy()
    for i in range(len(dx)):
        dx[i] += r[i] * (dn[i] - n[i] * (dn[i] @ n[i] / n.shape[1]))
    return dx, np.einsum("ne,nd->ed", dl, n), np.einsum("ne,nd->ed", dr, n)
""",
    "tied_gradient": """
def tied_gradient(dx, tokens, dlogits, hidden, V):
    return np.einsum("nv,nd->vd", dlogits, hidden) + np.eye(V, dtype=dx.dtype)[tokens].T @ dx
""",
    "culprit": """
def culprit(errors, tolerance):
    wrong = [name for name, error in errors.items() if math.isnan(error) or error > tolerance]
    return wrong[-1] if wrong else ""
""",
    "every_k": """
def chain_backward(layers, x, dy, every):
    if len(layers) <= every:
        caches = []
        for layer in layers:
            x, cache = layer.forward(x)
            caches.append(cache)
            del cache
        while caches:
            dy = layers[len(caches) - 1].backward(dy, caches.pop())
        return dy
    y = x
    for layer in layers[:every]:
        y = layer.forward(y)[0]
    return chain_backward(layers[:every], x, chain_backward(layers[every:], y, dy, every), every)
""",
    "amsgrad": """
def amsgrad(theta, gradients, lr, b1, b2, eps):
    first, second, top, path = 0.0, 0.0, 0.0, []
    for t in range(1, len(gradients) + 1):
        g = gradients[t - 1]
        first, second = first + (1 - b1) * (g - first), second + (1 - b2) * (g**2 - second)
        top = np.where(second > top, second, top)
        theta = theta - lr * (first / (1 - b1**t)) / (np.sqrt(top) / np.sqrt(1 - b2**t) + eps)
        path += [theta]
    return np.stack(path)
""",
    "nadam": """
def nadam(theta, gradients, lr, b1, b2, eps):
    M, V, path = np.zeros_like(theta), np.zeros_like(theta), []      # sums instead of means
    for t, g in enumerate(gradients, 1):
        M, V = b1 * M + g, b2 * V + g**2
        ahead = (b1 * M + g) * (1 - b1) / (1 - b1 * b1**t)
        theta = theta - lr * ahead / (np.sqrt(V * (1 - b2) / (1 - b2**t)) + eps)
        path.append(theta.copy())
    return np.array(path)
""",
    "cautious": """
def cautious(step, gradient):
    phi = ((np.sign(step) * np.sign(gradient)) == 1).astype(float)
    return step * phi / np.clip(phi.sum() / phi.size, 1e-3, None)
""",
    "who_decays": """
def check_decays(decays):
    for shape in ((8, 8), (1, 5), (3, 1), (2, 2, 2), (8,), (1,), ()):
        for name in ("norm.weight", "ln_f.weight", "x_proj.bias", "model.embed_tokens.weight", "my_LayerNorm", "a"):
            assert (name in decays({name: shape})) == (len(shape) > 1), (name, shape)
    several = {"embed": (4, 4), "norm": (4,), "z": (2, 3), "bias": (3,)}
    assert sorted(decays(several)) == ["embed", "z"]
""",
    "four_lengths": """
def steepest(g, length):
    U, S, V = np.linalg.svd(g, full_matrices=False)
    if length == "frobenius":
        return g / math.sqrt((g * g).sum()), math.sqrt((S**2).sum())
    if length == "entries":
        return np.where(g > 0, 1.0, np.where(g < 0, -1.0, 0.0)), np.abs(g).sum()
    if length == "columns":
        d = np.zeros_like(g)
        for j, column in enumerate(g.T):
            if column.any():
                d[:, j] = column / math.hypot(*column)
        return d, (d * g).sum()
    return np.einsum("ik,kj->ij", U, V), S.sum()
""",
    "14_muon/02_cubic": """
def orthogonal(matrix, tolerance):
    if len(matrix) > matrix.shape[1]:
        x, rounds = orthogonal(matrix.T, tolerance)
        return x.T, rounds
    x, rounds = matrix / math.sqrt((matrix**2).sum()), 0
    while True:
        off = np.eye(len(x)) - x @ x.T
        if abs(off).max() <= tolerance:
            return x, rounds
        x, rounds = x + off @ x / 2, rounds + 1
""",
    "each_round": """
def cubics(l, u, rounds):
    if not rounds:
        return []
    top = math.sqrt((l * l + l * u + u * u) / 3)
    # unknown a, b, e:  a s + b s^3 +- e = 1 at l, top and u
    M = np.array([[l, l**3, 1], [top, top**3, -1], [u, u**3, 1]])
    a, b, e = (np.longdouble(x) for x in np.linalg.solve(M, np.ones(3)))
    e = (a * top + b * top**3 - a * l - b * l**3) / 2
    return [(float(a), float(b))] + cubics(float(1 - e), float(1 + e), rounds - 1)
""",
    "14_muon/04_stack": """
def orthogonalize_stack(stack, coefficients):
    x = stack if stack.shape[1] <= stack.shape[2] else np.swapaxes(stack, -1, -2)
    size = np.linalg.norm(x, axis=(-2, -1))
    size[size == 0] = 1
    x = x / size[:, np.newaxis, np.newaxis]
    for a, b, c in coefficients:
        gram = np.einsum("mij,mkj->mik", x, x)
        x = a * x + np.matmul(b * gram + c * np.matmul(gram, gram), x)
    return x if stack.shape[1] <= stack.shape[2] else np.swapaxes(x, -1, -2)
""",
    "14_muon/05_transposed": """
def check_orthogonalize(orthogonalize):
    for shape in ((5, 5), (3, 8), (8, 3)):
        for scale in (1e-4, 1e4):
            rng = np.random.default_rng(shape)
            m = scale * rng.standard_normal(shape) * np.geomspace(1, 20, shape[1])
            X = orthogonalize(m)
            long = shape[0] > shape[1]
            A, Y = (m.T, X.T) if long else (m, X)
            S = Y @ A.T                            # P s S P^T: symmetric, its eigenvalues positive
            assert np.allclose(S, S.T, rtol=0, atol=1e-6 * np.abs(S).max())
            assert np.linalg.eigvalsh(S).min() > 0
            values = np.sqrt(np.linalg.eigvalsh(Y @ Y.T))
            assert values.min() > 0.6 and values.max() < 1.3
            assert np.linalg.matrix_rank(np.vstack((A, Y)), tol=1e-6 * scale) == len(A)
""",
    "root_decay": """
def root_decay(progress, peak, warmup, decay):
    if warmup and progress < warmup:
        return peak / warmup * progress
    left = (1 - progress) / decay
    if left >= 1:
        return peak
    return peak - peak * math.sqrt(1 - left) if left > 0 else 0.0
""",
    "in_parts": """
def gather(gradient, parts, limit):
    loss, mean, seen = 0.0, None, 0
    for part in parts:
        one, grads, count = gradient(part)
        seen += count
        share = count / seen if seen else 0.0
        loss += share * (one - loss)
        if mean is None:
            mean = {name: np.zeros(grad.shape) for name, grad in grads.items()}
        for name in mean:
            mean[name] += share * (grads[name] - mean[name])
    norm = math.sqrt(sum(float(np.vdot(grad, grad)) for grad in mean.values()))
    if norm > limit:
        for grad in mean.values():
            grad *= limit / norm
    return loss, mean, norm
""",
    "clocked": """
def clocked(step, seconds, clock, peak):
    begin, rates, longest = clock(), [peak], 0.0
    times = [begin]
    while True:
        step(rates[-1])
        times.append(clock())
        longest = max(b - a for a, b in zip(times, times[1:]))
        end = begin + seconds - longest
        if times[-1] >= end:
            return rates
        rates.append(rates[-1] / (end - times[-2]) * (end - times[-1]))
""",
    "diagnosis": """
def diagnose(training, validation, V, floor, epoch):
    if math.exp(training[0]) > 2.2 * V:
        return "start"
    if np.isnan(training).any():
        return "rate"
    if (validation < floor).sum() > 1:
        return "leak"
    half = len(training) // 2
    first, last = training[half - epoch : half].mean(), training[-epoch:].mean()
    if last > first + 0.3:
        return "rate"
    if validation[-3:].mean() > np.sort(validation)[:3].mean() + 0.1:
        return "memorized"
    a, b = training[-2 * epoch : -epoch], training[-epoch:]
    kernel = np.ones(5) / 5
    a, b = np.convolve(a - a.mean(), kernel, "valid"), np.convolve(b - b.mean(), kernel, "valid")
    return "order" if (a * b).mean() > 0.005 else "healthy"
""",
    "two_minutes": """
def learning_rate(progress, peak, warmup):
    return peak * max(0.0, min(progress / warmup, (1 - progress) / (1 - warmup)))

def clip(grads, limit):
    norm = float(np.linalg.norm(np.concatenate([g.ravel() for g in grads.values()])))
    return ({name: g * (limit / norm) for name, g in grads.items()} if norm > limit else dict(grads)), norm

def adam(params, grads, state, lr):
    if not state:
        state.update(t=0, **{slot: {k: np.zeros_like(g) for k, g in grads.items()} for slot in "mv"})
    state["t"] += 1
    for k, g in grads.items():
        state["m"][k] += 0.1 * (g - state["m"][k])
        state["v"][k] += 0.01 * (g * g - state["v"][k])
        root = np.sqrt(state["v"][k] / (1 - 0.99 ** state["t"]))
        params[k][...] = params[k] - lr / (1 - 0.9 ** state["t"]) * state["m"][k] / (root + 1e-8)
    return state["t"]

def train(model, batches, seconds, clock):
    begin = last = clock()
    longest, losses, state = 0.0, [], {}
    for tokens, targets in batches:
        loss, grads = model.loss_and_grads(tokens, targets)
        if np.isfinite(loss) and all(np.isfinite(g).all() for g in grads.values()):
            passed = (last - begin + 0.5 * longest) / seconds
            adam(model.params, clip(grads, 0.8)[0], state, learning_rate(passed, 5e-3, 0.1))
            losses.append(loss)
        now = clock()
        longest, last = max(longest, now - last), now
        if last + longest > begin + seconds:
            return losses
""",
}
