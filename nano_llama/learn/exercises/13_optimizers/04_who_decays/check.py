from nano_llama.learn.checks import test_cases


def by_axes(shapes):
    return [name for name, shape in shapes.items() if len(shape) >= 2]


def as_a_set(shapes):
    return set(shapes) - {name for name, shape in shapes.items() if len(shape) < 2}


def backwards(shapes):
    return tuple(name for name in reversed(list(shapes)) if len(shapes[name]) > 1)


def old_list(shapes):
    spared = ("bias", "LayerNorm.weight")
    return [name for name in shapes if len(shapes[name]) > 1 or not any(word in name for word in spared)]


def biases_too(shapes):
    return [name for name, shape in shapes.items() if len(shape) > 1 or name.endswith(".bias")]


def embeddings_spared(shapes):
    return [name for name in by_axes(shapes) if "embed" not in name]


def sounds_like_a_norm(shapes):
    return [name for name in by_axes(shapes) if "norm" not in name.lower() and "bias" not in name]


def thin_spared(shapes):
    return [name for name in by_axes(shapes) if min(shapes[name]) > 1]


def two_axes_only(shapes):
    return [name for name, shape in shapes.items() if len(shape) == 2]


def turned_round(shapes):
    kept, left = by_axes(shapes), [name for name in shapes if len(shapes[name]) < 2]
    return kept[1:] + left[:1] if kept and left else [*kept, "nothing"]


def cases(seed):
    yield from test_cases(
        "check_decays",
        sound={"a list": (by_axes,), "a set": (as_a_set,), "a tuple, last name first": (backwards,)},
        faults={
            "only the words of BERT's norms and biases are excepted": (old_list,),
            "biases decay": (biases_too,),
            "embeddings do not decay": (embeddings_spared,),
            "a matrix whose name sounds like a norm or a bias does not decay": (sounds_like_a_norm,),
            "a matrix with a side of one does not decay": (thin_spared,),
            "only what has exactly two axes decays": (two_axes_only,),
            "as many names as there should be, but others": (turned_round,),
        },
    )
