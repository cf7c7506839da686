"""Kind: how a tensor's numbers are stored, from the file to the kernels. One enum with the names and numbers of ggml.

    Kind["Q4_1"] is Kind.Q4_1 == "Q4_1"        a str, as mappings, headers and JSON name it
    kind.number                                3: GGUF's number of it, and what compiled kernels compare
    kind.block_size, kind.block_bytes          32 numbers share a scale, in 20 bytes

Not here: packing and unpacking blocks (gguf_quants.py); dtypes of whole numbers (dtypes.py).
Tests: tests/formats/test_gguf_quants.py.
"""

from enum import StrEnum


class Kind(StrEnum):
    """Every kind that can be read. F32, F16 and BF16 are blocks of one number."""

    number: int
    block_size: int
    block_bytes: int

    def __new__(cls, name: str, number: int, block_size: int, block_bytes: int) -> "Kind":
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.number, kind.block_size, kind.block_bytes = number, block_size, block_bytes
        return kind

    F32 = "F32", 0, 1, 4
    F16 = "F16", 1, 1, 2
    BF16 = "BF16", 30, 1, 2
    Q4_0 = "Q4_0", 2, 32, 18
    Q4_1 = "Q4_1", 3, 32, 20
    Q5_0 = "Q5_0", 6, 32, 22
    Q5_1 = "Q5_1", 7, 32, 24
    Q8_0 = "Q8_0", 8, 32, 34
    Q4_K = "Q4_K", 12, 256, 144
    Q5_K = "Q5_K", 13, 256, 176
    Q6_K = "Q6_K", 14, 256, 210

    @property
    def bits_per_weight(self) -> float:
        """Scales included."""
        return 8 * self.block_bytes / self.block_size


BY_NUMBER = {kind.number: kind for kind in Kind}
FLOATS = (Kind.F32, Kind.F16, Kind.BF16)
WRITABLE_BLOCKS = (Kind.Q8_0, Kind.Q4_0, Kind.Q4_1)  # what a model can be quantized to
UNREAD = {  # names for error messages
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
