"""Answers to the exercises of chapters 1 to 6, written in another way than ours.

Used by tests/learn/test_right_answers.py.
"""

ANSWERS = {
    "equal_perplexity": """
def bits_per_byte(nats, num_bytes):
    return sum(nats) / np.log(2) / num_bytes

def equal_perplexity(perplexity, tokens, other_tokens):
    return np.exp(np.log(perplexity) * tokens / other_tokens)
""",
    "bigram": """
def bigram(documents, V):
    table = []
    for a in range(V):
        row = Counter(d[i + 1] for d in documents for i in range(len(d) - 1) if d[i] == a)
        table.append([row[b] / row.total() if row else 1.0 / V for b in range(V)])
    return np.array(table)
""",
    "absolute_discounting": """
def discounted(counts, q, d):
    P = np.zeros(counts.shape)
    for a in range(len(q)):
        if counts[a].sum() == 0:
            P[a] = q
            continue
        P[a] = np.clip(counts[a] - d, 0, None) / counts[a].sum()
        P[a] += (1 - P[a].sum()) * q
    return P
""",
    "mean_of_means": """
def check_evaluate(evaluate):
    rng = np.random.default_rng(3)
    for lengths in ([3, 5, 1], [1, 4, 2], [2]):
        batches = [rng.exponential(2.0, n) for n in lengths]
        np.testing.assert_allclose(evaluate(batches), np.concatenate(batches).mean(), rtol=1e-6)
""",
    "count_pairs": """
def count_pairs(ids):
    counts = Counter()
    runs = [(token, len(list(run))) for token, run in groupby(ids)]
    for token, n in runs:
        if n > 1:
            counts[token, token] += n // 2
    for (a, _), (b, _) in zip(runs, runs[1:]):
        counts[a, b] += 1
    return counts
""",
    "encode": """
def encode(data, merges):
    ids = list(data)
    for rank, (a, b) in enumerate(merges):
        i = 0
        while i < len(ids) - 1:
            if ids[i] == a and ids[i + 1] == b:
                ids[i : i + 2] = [256 + rank]
            i += 1
    return ids
""",
    "hold_back": """
def hold_back(data):
    for back in range(4):
        try:
            data[: len(data) - back].decode("utf-8")
            return back
        except UnicodeDecodeError:
            pass
""",
    "likeliest_pieces": """
def best_pieces(text, logp):
    best = {len(text): (0.0, None)}
    for i in range(len(text) - 1, -1, -1):
        best[i] = max((logp[p] + best[i + len(p)][0], p) for p in logp if text.startswith(p, i))
    i, pieces = 0, []
    while i < len(text):
        pieces.append(best[i][1])
        i += len(pieces[-1])
    return pieces
""",
    "best_step": """
def best_step(value, third, u):
    h = np.cbrt(3 * u * np.abs(value / third))
    return h, 1.5 * u * np.abs(value) / h
""",
    "stencil": """
def stencil(offsets, order):
    n = len(offsets)
    weights = np.zeros(n)
    for i in range(n):
        basis = np.poly1d([1.0])
        for j in range(n):
            if j != i:
                basis = basis * np.poly1d([1.0, -offsets[j]]) / (offsets[i] - offsets[j])
        weights[i] = basis.deriv(order)(0) if order else basis(0)
    return weights
""",
    "complex_step": """
def gradient(f, x):
    steps = np.eye(x.size) * 1e-30j
    return np.array([f(x + step.reshape(x.shape)).imag * 1e30 for step in steps]).reshape(x.shape)
""",
    "your_gradcheck": """
def check(forward, backward, x):
    rng = np.random.default_rng(7)
    for _ in range(2):
        y, cache = forward(x)
        dy = rng.standard_normal(np.shape(y))
        dx = np.asarray(backward(dy, cache))
        assert dx.shape == x.shape
        slopes = np.empty(x.shape)
        for i in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[i] += 1e-5
            down[i] -= 1e-5
            slopes[i] = np.sum((forward(up)[0] - forward(down)[0]) * dy) / 2e-5
        assert np.allclose(dx, slopes, rtol=0, atol=3e-5 * np.abs(slopes).max())
""",
    "bias": """
def linear_forward(x, weight, bias):
    return np.einsum("...i,oi->...o", x, weight) + bias, (x, weight)

def linear_backward(dy, cache):
    x, weight = cache
    leading = tuple(range(dy.ndim - 1))
    return np.einsum("...o,oi->...i", dy, weight), np.tensordot(dy, x, (leading, leading)), dy.sum(axis=leading)
""",
    "low_rank": """
def low_rank_forward(x, W, A, B, s):
    return x @ (W + s * B @ A).T, (x, W, A, B, s)

def low_rank_backward(dy, cache):
    x, W, A, B, s = cache
    dW = dy.T @ x
    return dy @ (W + s * B @ A), s * B.T @ dW, s * dW @ A.T
""",
    "max_norm": """
def max_norm_forward(tokens, E, c):
    n = np.linalg.norm(E, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(n > c, c * E / n, E)
    return scaled[tokens], (tokens, E, n, c)

def max_norm_backward(dy, cache):
    tokens, E, n, c = cache
    dE = np.zeros_like(E)
    for place, token in enumerate(tokens):
        if n[token] > c:
            unit = E[token] / n[token]
            dE[token] += c / n[token] * (dy[place] - unit * (unit @ dy[place]))
        else:
            dE[token] += dy[place]
    return dE
""",
    "repeats": """
def check_backward(backward):
    rng = np.random.default_rng(1)
    for V in (3, 12):
        tokens, dy = rng.integers(0, V, (3, 5)), rng.standard_normal((3, 5, 4))
        expected = (tokens.reshape(-1, 1) == np.arange(V)).T @ dy.reshape(15, 4)
        assert np.abs(backward(dy, tokens, V) - expected).max() < 1e-9
""",
    "temperature": """
def softmax_forward(x, tau):
    shifted = (x - x.max(axis=-1, keepdims=True)) / tau
    y = np.exp(shifted)
    y /= y.sum(axis=-1, keepdims=True)
    return y, (shifted, tau, y)

def softmax_backward(dy, cache):
    shifted, tau, y = cache
    dz = y * dy - y * (y * dy).sum(axis=-1, keepdims=True)
    return dz / tau, -(dz * shifted).sum() / tau
""",
    "label_smoothing": """
def smoothed_forward(x, targets, s):
    rows = np.flatnonzero(targets != -100)
    shifted = x - x.max(axis=-1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    loss = 0.0
    if len(rows):
        loss = -((1 - s) * logp[rows, targets[rows]] + s * logp[rows].mean(axis=-1)).mean()
    return loss, (logp, rows, targets, s)

def smoothed_backward(dloss, cache):
    logp, rows, targets, s = cache
    dx = np.zeros_like(logp)
    dx[rows] = np.exp(logp[rows]) - s / logp.shape[1]
    dx[rows, targets[rows]] -= 1 - s
    return dx * float(dloss / max(len(rows), 1))
""",
    "soft_cap": """
def capped_forward(x, targets, c):
    tanh = np.tanh(x / c)
    z = c * tanh
    p = np.exp(z - z.max(axis=1)[:, None])
    p /= p.sum(axis=1)[:, None]
    loss = 0.0
    for n, t in enumerate(targets):
        loss += (z[n].max() - z[n, t] + np.log(np.exp(z[n] - z[n].max()).sum())) / len(x)
    return loss, (p, tanh, targets)

def capped_backward(dloss, cache):
    p, tanh, targets = cache
    return dloss * (p - np.eye(p.shape[1], dtype=p.dtype)[targets]) / len(p) * (1 - tanh * tanh)
""",
    "micro_batches": """
def combine(losses, grads, counts):
    total = sum(counts)
    if total == 0:
        return 0.0, {name: np.zeros_like(value) for name, value in grads[0].items()}
    gradients = {name: np.zeros_like(value) for name, value in grads[0].items()}
    for part, count in zip(grads, counts):
        for name in part:
            gradients[name] += part[name] * count / total
    return np.dot(losses, counts) / total, gradients
""",
    "one_plus_gain": """
def norm_forward(x, weight, eps):
    rms = np.sqrt((x**2).sum(axis=-1, keepdims=True) / x.shape[-1] + eps)
    n = x / rms
    return n + n * weight, (n, rms, weight)

def norm_backward(dy, cache):
    n, rms, weight = cache
    g = dy + dy * weight
    dx = (g - n * (g * n).mean(axis=-1, keepdims=True)) / rms
    return dx, (dy * n).reshape(-1, n.shape[-1]).sum(axis=0)
""",
    "qk_norm": """
def qk_norm_forward(q, weight, eps):
    rms = np.sqrt(np.einsum("bthk,bthk->bth", q, q)[..., None] / q.shape[-1] + eps)
    return q / rms * weight, (q / rms, rms, weight)

def qk_norm_backward(dy, cache):
    n, rms, weight = cache
    g = dy * weight
    return (g - n * np.mean(g * n, axis=3, keepdims=True)) / rms, np.einsum("bthk,bthk->hk", dy, n)
""",
    "radial": """
def radial(x, weight, eps, dy):
    mean = np.vecdot(x, x) / x.shape[-1]
    S = np.vecdot(dy * weight, x)
    return S * eps / (mean + eps) ** 1.5
""",
    "residual_norm": """
def residual_norm_forward(x, delta, weight, eps):
    h = x + delta
    r = (np.einsum("nd,nd->n", h, h) / h.shape[1] + eps) ** -0.5
    y = np.einsum("nd,n,d->nd", h, r, weight)
    return (h, y), (h, r, weight)

def residual_norm_backward(dh, dy, cache):
    h, r, weight = cache
    m = np.einsum("nd,nd,d->n", dy, h, weight) / h.shape[1]
    dx = np.einsum("nd,n,d->nd", dy, r, weight)
    for row in range(len(dx)):
        dx[row] += dh[row] - h[row] * (r[row] ** 3 * m[row])
    return dx, dx, r @ (dy * h)
""",
}
