# stage: random | says: You count the names. Another choice of as many passes.
def check_decays(decays):
    matrices = {
        "model.embed_tokens.weight": (50, 8), "lm_head.weight": (50, 8), "conv.weight": (4, 3, 2, 2),
        "renorm_proj.weight": (8, 8), "one.weight": (1, 8), "bias_mlp.weight": (8, 4),
        "LayerNorm_adapter.weight": (4, 8),
    }  # fmt: skip
    vectors = {
        "layers.0.input_layernorm.weight": (8,), "norm.weight": (8,), "ln_f.weight": (8,), "LayerNorm.weight": (8,),
        "layer_norm.bias": (8,), "gain": (8,), "q_proj.bias": (8,), "scale": (),
    }  # fmt: skip
    assert len(decays({**matrices, **vectors})) == len(matrices)
