"""The number types that weight files name ("F32", "BF16", ...) as NumPy dtypes, and the cast between them.

bfloat16 comes from ml_dtypes, because NumPy has none. All are little-endian, as every format here stores them.
Not here: quantized blocks (gguf_quants.py), whose numbers share a scale and have no dtype.
Tests: tests/formats/test_mapping.py.
"""

import ml_dtypes
import numpy as np

from nano_llama.core.errors import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATS = ("F64", "F32", "F16", "BF16")
HF_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # as config.json's `dtype` says

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: np.typing.DTypeLike) -> str:
    """dtype_name(np.float32) == "F32". Raises UserError for a type that no weight file holds."""
    name = _NAMES.get(np.dtype(dtype).newbyteorder("<"))
    if name is None:
        raise UserError(f"No weight file holds numbers of type {np.dtype(dtype)}.", hint=f"Known: {', '.join(DTYPES)}.")
    return name


def float_name(dtype: "str | np.typing.DTypeLike") -> str:
    """The file's name of a float type given in any spelling: "F16", "float16", "bf16", np.float16 ..."""
    for name, hf_name in HF_NAMES.items():
        if isinstance(dtype, str) and dtype.lower() in (name.lower(), hf_name):
            return name
        if not isinstance(dtype, str) and np.dtype(dtype) == DTYPES[name]:
            return name
    raise UserError(f"{dtype!r} is not a float type that weights are saved in.", hint=f"Known: {', '.join(FLOATS)}.")


def cast(name: str, array: np.ndarray, wanted: str) -> np.ndarray:
    """`array` as the float type `wanted`, rounded to nearest. `name` is the tensor's, for the message.

    Raises UserError where a finite number would become infinite: F16 ends at 65,504, and one infinite weight
    makes every output NaN.
    """
    dtype = DTYPES[wanted]
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if np.isinf(result).any() and not np.isinf(array).any():
        raise UserError(
            f"{name} holds a number of magnitude {float(np.abs(array).max()):.6g}, too large for {wanted}.",
            hint="Save it as BF16 or F32 instead." if wanted == "F16" else "Save it as F32 instead.",
        )
    return result
