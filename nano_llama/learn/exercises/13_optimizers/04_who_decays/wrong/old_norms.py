# stage: random | says: Your example has no gain with a name of another family, such as ln_f or input_layernorm.
def check_decays(decays):
    matrices = {
        "model.embed_tokens.weight": (50, 8), "lm_head.weight": (50, 8), "conv.weight": (4, 3, 2, 2),
        "renorm_proj.weight": (8, 8), "one.weight": (1, 8), "bias_mlp.weight": (8, 4),
        "LayerNorm_adapter.weight": (4, 8),
    }  # fmt: skip
    vectors = {
        "LayerNorm.weight": (8,),
        "LayerNorm.bias": (8,), "q_proj.bias": (8,),
    }  # fmt: skip
    assert set(decays({**matrices, **vectors})) == set(matrices)
