"""Right answers that are written in another way than ours pass: what is checked is what was asked, not how."""

import pytest

from nano_llama.learn import exercise, exercises

HEADER = """
import math
from collections import Counter, defaultdict
from itertools import groupby

import numpy as np

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
}


def test_every_exercise_has_another_answer():
    assert sorted(exercise(name).name for name in ANSWERS) == [one.name for one in exercises()]


@pytest.mark.parametrize("name", ANSWERS)
def test_it_passes(checker, tmp_path, name):
    file = tmp_path / "answer.py"
    file.write_text(HEADER + ANSWERS[name])
    verdict = checker.check(exercise(name), file, seed=3)
    assert verdict.passed, (verdict.stage, verdict.case, verdict.message, verdict.says, verdict.where)
