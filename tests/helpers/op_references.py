"""Random inputs for every op of Volume 1, each with an independent reference in PyTorch, whose autograd judges ours.

The references are written from the papers' formulas with torch's elementary operations; none of them calls the op of
the same name in torch.nn.functional, and none of them looks at our code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nano_llama.vol1_numpy import ops
from nano_llama.vol1_numpy.ops.registry import FAST


@dataclass(frozen=True)
class Case:
    forward: Callable
    backward: Callable
    inputs: dict[str, Any]  # in forward's order, float64
    wrt: list[str]  # what has a gradient
    reference: Callable  # (torch, *inputs) -> tensor

    def cast(self, dtype) -> dict[str, Any]:
        return {
            name: value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
            for name, value in self.inputs.items()
        }

    def run(self, dtype=np.float64, seed=9):
        """out, dout and {name: gradient} from our pair."""
        out, cache = self.forward(*self.cast(dtype).values())
        dout = np.random.default_rng(seed).standard_normal(np.shape(out))
        claimed = self.backward(dout.astype(dtype) if np.shape(out) else float(dout), cache)
        claimed = claimed if isinstance(claimed, tuple) else (claimed,)
        return out, dout, dict(zip(self.wrt, claimed, strict=True))

    def judge(self, torch, dout):
        """out and {name: gradient} from the reference's autograd, in float64."""
        tensors = {n: torch.tensor(v) if isinstance(v, np.ndarray) else v for n, v in self.inputs.items()}
        for name in self.wrt:
            tensors[name].requires_grad_()
        out = self.reference(torch, *tensors.values())
        grads = torch.autograd.grad((out * torch.tensor(dout)).sum(), [tensors[name] for name in self.wrt])
        return out.detach().numpy(), {name: g.numpy() for name, g in zip(self.wrt, grads, strict=True)}


def relative_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.max(np.abs(ours - theirs), initial=0) / max(np.max(np.abs(theirs), initial=0), 1e-12))


# -- references ---------------------------------------------------------------------------------------------------


def softmax_reference(torch, x):
    """Zeros where a whole row is -inf."""
    top = x.amax(-1, keepdim=True).detach()
    e = torch.exp(x - torch.where(torch.isinf(top), torch.zeros_like(top), top))
    total = e.sum(-1, keepdim=True)
    return e / torch.where(total == 0, torch.ones_like(total), total)


def attention_reference(torch, q, k, v, mask=None, *_):
    """Head by head, with the shared heads written out."""
    heads = []
    for h in range(q.shape[1]):
        g = h * k.shape[1] // q.shape[1]
        scores = torch.einsum("btk,bsk->bts", q[:, h], k[:, g]) / math.sqrt(q.shape[-1])
        if mask is not None:
            full = mask.expand(q.shape[0], 1, q.shape[2], k.shape[2])[:, 0]
            scores = scores.masked_fill(~full, -torch.inf)
        heads.append(torch.einsum("bts,bsk->btk", softmax_reference(torch, scores), v[:, g]))
    return torch.stack(heads, 1)


def rope_reference(torch, x, cos, sin, layout="half"):
    """Complex numbers: a pair of features times exp(i angle)."""
    pairs = x.unflatten(-1, (2, -1)).transpose(-1, -2) if layout == "half" else x.unflatten(-1, (-1, 2))
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin))
    return (turned.transpose(-1, -2) if layout == "half" else turned).flatten(-2)


def cross_entropy_reference(torch, logits, targets, ignore_index=-100, z_loss=0.0):
    total, count = logits.sum() * 0, 0
    for row, target in zip(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).tolist(), strict=True):
        if target != ignore_index:
            lse = torch.logsumexp(row, 0)
            total, count = total + lse - row[target] + z_loss * lse**2, count + 1
    return total / max(count, 1)


def lora_linear_reference(torch, x, weight, lora_A, lora_B, scale):
    """The matrix that the adapter stands for, formed."""
    return torch.einsum("bti,oi->bto", x, weight + scale * lora_B @ lora_A)


def dora_linear_reference(torch, x, weight, lora_A, lora_B, magnitude, scale, lengths):
    """The same, with each row rescaled."""
    return torch.einsum("bti,oi->bto", x, torch.diag(magnitude / lengths) @ (weight + scale * lora_B @ lora_A))


def rmsnorm_reference(torch, x, weight, eps):
    return weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps)


def layernorm_reference(torch, x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, correction=0, keepdim=True) + eps) * weight + bias


def gelu_reference(torch, x):
    """1 + tanh(u) = 2 / (1 + exp(-2 u)): the sigmoid's form."""
    return x / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# -- inputs: shapes are drawn anew for each seed, with B = 1, T = 1 and odd sizes among them -----------------------


def random_attention(rng, scale=1.0):
    G, R = rng.choice([1, 2, 3]), rng.choice([1, 2, 3])
    B, T, K = rng.choice([1, 2]), rng.choice([1, 5, 9]), rng.choice([2, 3, 8])
    S = rng.choice([T, T + 3])
    q, k, v = (rng.standard_normal(shape) for shape in ((B, G * R, T, K), (B, G, S, K), (B, G, S, K)))
    masks = [
        None,
        np.tri(T, S, S - T, dtype=bool),
        rng.random((B, 1, T, S)) < 0.4,  # some queries may attend to nothing
        rng.random((B, 1, 1, S)) < 0.6,
        np.zeros((T, S), bool),
    ]
    return {"q": scale * q, "k": scale * k, "v": v, "mask": masks[rng.integers(len(masks))]}


def random_inputs(name: str, rng) -> tuple[dict[str, Any], list[str], Callable]:
    B, T = int(rng.choice([1, 3])), int(rng.choice([1, 4, 7]))
    D = int(rng.choice([1, 5, 8]))
    normal = rng.standard_normal
    if name == "linear":
        out = int(rng.choice([1, 6]))
        return {"x": normal((B, T, D)), "weight": normal((out, D))}, ["x", "weight"], lambda torch, x, w: x @ w.T
    if name == "affine":
        inputs = {"x": normal((B, T, D)), "weight": normal((6, D)), "bias": normal(6)}
        return inputs, ["x", "weight", "bias"], lambda torch, x, w, b: torch.einsum("bti,oi->bto", x, w) + b
    if name == "gelu":
        return {"x": 3 * normal((B, T, D))}, ["x"], gelu_reference
    if name == "frozen_linear":
        return {"x": normal((B, T, D)), "weight": normal((4, D))}, ["x"], lambda torch, x, w: x @ w.T
    if name in ("lora_linear", "dora_linear"):
        out, r = int(rng.choice([1, 6])), int(rng.choice([1, 2, 3]))
        inputs = {
            "x": normal((B, T, D)),
            "weight": normal((out, D)),
            "lora_A": normal((r, D)),
            "lora_B": normal((out, r)),
        }
        scale, learned = float(rng.choice([0.5, 3])), ["x", "lora_A", "lora_B"]
        if name == "lora_linear":
            return inputs | {"scale": scale}, learned, lora_linear_reference
        inputs |= {"lora_magnitude_vector": normal(out), "scale": scale, "lengths": rng.uniform(0.3, 3, out)}
        return inputs, [*learned, "lora_magnitude_vector"], dora_linear_reference
    if name == "embedding":
        tokens = rng.integers(0, 3, (B, T))  # repeated tokens, and tokens of 5 that never occur
        return {"tokens": tokens, "weight": normal((5, D))}, ["weight"], lambda torch, t, w: w[t]
    if name == "rmsnorm":
        return {"x": normal((B, T, D)), "weight": normal(D), "eps": 1e-2}, ["x", "weight"], rmsnorm_reference
    if name == "layernorm":
        inputs = {"x": normal((B, T, D)), "weight": normal(D), "bias": normal(D), "eps": 1e-2}
        return inputs, ["x", "weight", "bias"], layernorm_reference
    if name == "softmax":
        return {"x": normal((B, T, D))}, ["x"], softmax_reference
    if name in ("relu", "squared_relu"):
        power = 2 if "squared" in name else 1
        return {"x": 3 * normal((B, T, D))}, ["x"], lambda torch, x: torch.where(x > 0, x, 0 * x) ** power
    if name == "silu":
        return {"x": 3 * normal((B, T, D))}, ["x"], lambda torch, x: x / (1 + torch.exp(-x))
    if name == "swiglu":
        inputs = {"gate": 3 * normal((B, T, D)), "up": normal((B, T, D))}
        return inputs, ["gate", "up"], lambda torch, gate, up: gate / (1 + torch.exp(-gate)) * up
    if name in ("rope", "rope_interleaved"):
        K = 2 * int(rng.choice([1, 3, 4]))
        angles = rng.uniform(-9, 9, (T, K // 2))
        inputs = {"x": normal((B, D, T, K)), "cos": 1.3 * np.cos(angles), "sin": 1.3 * np.sin(angles)}  # as YaRN scales
        return inputs | {"layout": "interleaved" if "_" in name else "half"}, ["x"], rope_reference
    if name == "single_head_attention":
        q, k, v, mask = random_attention(rng).values()
        mask = None if mask is None else np.broadcast_to(mask, (len(q), 1, q.shape[2], k.shape[2]))[0, 0]
        inputs = {"q": q[0, 0], "k": k[0, 0], "v": v[0, 0], "mask": mask}
        return (
            inputs,
            ["q", "k", "v"],
            lambda torch, q, k, v, mask: attention_reference(torch, q[None, None], k[None, None], v[None, None], mask)[
                0, 0
            ],
        )
    if name == "attention":
        return random_attention(rng), ["q", "k", "v"], attention_reference
    if name == "flash_attention":
        inputs = random_attention(rng) | {"block": int(rng.choice([1, 2, 4, 64]))}
        return inputs, ["q", "k", "v"], attention_reference
    if name == "cross_entropy":
        V = int(rng.choice([2, 11]))
        targets = rng.integers(0, V, (B, T))
        targets[rng.random((B, T)) < rng.choice([0, 0.3, 1])] = -100  # none, some, all ignored
        inputs = {"logits": 2 * normal((B, T, V)), "targets": targets, "ignore_index": -100}
        return inputs | {"z_loss": float(rng.choice([0, 0.1]))}, ["logits"], cross_entropy_reference
    assert name == "dropout"
    keep = np.random.default_rng(4).random((B, T, D)) >= 0.3
    inputs = {"x": normal((B, T, D)), "p": 0.3, "seed": 4}  # the pair below seeds a new generator for each call
    return inputs, ["x"], lambda torch, x, p, seed: x * torch.tensor(keep) / (1 - p)


PAIRS = {
    name: (getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward"))
    for name in (
        *(
            "linear",
            "affine",
            "gelu",
            "relu",
            "squared_relu",
            "frozen_linear",
            "lora_linear",
            "dora_linear",
            "embedding",
            "rmsnorm",
            "layernorm",
            "softmax",
            "silu",
            "swiglu",
            "rope",
        ),
        *("single_head_attention", "attention", "flash_attention", "cross_entropy"),
    )
}
PAIRS["rope_interleaved"] = PAIRS["rope"]
PAIRS["dropout"] = (lambda x, p, seed: ops.dropout_forward(x, p, np.random.default_rng(seed)), ops.dropout_backward)
FAST_PAIRS = {
    f"fast {name}": getattr(FAST, name)
    for name in ("embedding", "rmsnorm", "rope", "attention", "swiglu", "cross_entropy")
}
FAST_PAIRS["fast rope_interleaved"] = FAST.rope


def make_case(name: str, seed: int) -> Case:
    forward, backward = (PAIRS | FAST_PAIRS)[name]
    return Case(forward, backward, *random_inputs(name.removeprefix("fast "), np.random.default_rng(seed)))


ACTIVATIONS = {
    "silu": lambda torch, x: x / (1 + torch.exp(-x)),
    "gelu_pytorch_tanh": lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": lambda torch, x: torch.where(x > 0, x, 0 * x),
    "relu2": lambda torch, x: torch.where(x > 0, x, 0 * x) ** 2,
}
AROUND = {  # a sublayer f, and its norm n
    "pre": lambda x, f, n: x + f(n(x)),
    "post": lambda x, f, n: n(x + f(x)),
    "reordered": lambda x, f, n: x + n(f(x)),
}


def llama_reference(torch, config, params, tokens, targets, cos, sin, mask):
    """The whole model in float64: {name: array} -> loss, {name: gradient}, by autograd."""
    w = {name: torch.tensor(array, dtype=torch.float64).requires_grad_() for name, array in params.items()}
    cos, sin, mask = torch.tensor(cos), torch.tensor(sin), torch.tensor(mask)
    if config.sliding_window is not None:
        distance = torch.arange(mask.shape[-2])[:, None] - torch.arange(mask.shape[-1])
        mask = mask & (distance < config.sliding_window)
    around = AROUND[config.norm_placement]

    def heads(x):
        return x.unflatten(-1, (-1, config.head_dim)).transpose(1, 2)

    x = w["model.embed_tokens.weight"][torch.tensor(tokens)]
    for i in range(config.num_hidden_layers):
        p = {n.removeprefix(f"model.layers.{i}."): t for n, t in w.items() if n.startswith(f"model.layers.{i}.")}

        def attention(h, p=p):
            q, k, v = (heads(h @ p[f"self_attn.{n}_proj.weight"].T) for n in "qkv")
            q, k = rope_reference(torch, q, cos, sin), rope_reference(torch, k, cos, sin)
            a = attention_reference(torch, q, k, v, mask).transpose(1, 2).flatten(2)
            return a @ p["self_attn.o_proj.weight"].T

        def mlp(h, p=p):
            opened = ACTIVATIONS[config.hidden_act](torch, h @ p["mlp.gate_proj.weight"].T)
            return (opened * (h @ p["mlp.up_proj.weight"].T)) @ p["mlp.down_proj.weight"].T

        for sublayer, gain in ((attention, "input_layernorm.weight"), (mlp, "post_attention_layernorm.weight")):
            x = around(x, sublayer, lambda y, w=p[gain]: rmsnorm_reference(torch, y, w, config.rms_norm_eps))
    h = rmsnorm_reference(torch, x, w["model.norm.weight"], config.rms_norm_eps)
    logits = h @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
    loss = cross_entropy_reference(torch, logits, torch.tensor(targets))
    grads = torch.autograd.grad(loss, list(w.values()), allow_unused=True)
    return float(loss.detach()), {
        name: np.zeros(params[name].shape) if g is None else g.numpy() for name, g in zip(w, grads, strict=True)
    }
