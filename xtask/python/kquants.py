"""kquants.gguf: the block types that llama.cpp's usual mixtures are made of, quantized by llama.cpp itself.

`gguf` can read the K types but not write them, so it checks what llama.cpp wrote.
"""

import numpy as np
from common import add_model_metadata, finish, sqnr, weights, write_digests
from gguf import GGML_QUANT_SIZES, GGUFReader, GGUFWriter
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

COLUMNS = 512  # two blocks of 256
# type, rows, SQNR in dB that the type reaches at least on these weights
TENSORS = {
    "token_embd.weight": (Type.Q6_K, 64, 33.0),
    "blk.0.attn_q.weight": (Type.Q4_K, 64, 21.0),
    "blk.0.attn_k.weight": (Type.Q5_0, 64, 25.0),
    "blk.0.attn_v.weight": (Type.Q5_K, 64, 27.0),
    "blk.0.attn_output.weight": (Type.Q5_1, 64, 27.0),
    "blk.0.ffn_gate.weight": (Type.Q3_K, 64, 15.0),
    "blk.0.ffn_up.weight": (Type.Q2_K, 64, 9.0),
    "blk.0.ffn_down.weight": (Type.Q4_1, 32, 21.0),
    "blk.1.attn_q.weight": (Type.Q4_0, 32, 19.0),
    "blk.1.attn_k.weight": (Type.Q8_0, 32, 43.0),
    "blk.1.attn_v.weight": (Type.IQ4_NL, 16, 21.0),
}


def matrix(rng, rows):
    """Heavy-tailed weights; the first row is zero and the second constant, where a scale or a minimum vanishes."""
    values = weights(rng, rows, COLUMNS)
    values[0], values[1] = 0.0, 0.03
    return values


def encode(library, values, kind):
    rows, columns = values.shape
    block, size = GGML_QUANT_SIZES[kind]
    bytes_per_row = columns // block * size
    blocks = library.quantize(values.ctypes.data, rows, columns, int(kind), rows * bytes_per_row)
    return np.frombuffer(blocks, dtype=np.uint8).reshape(rows, bytes_per_row)


def kquants_gguf(path, library):
    """Writes the file, and beside it what `gguf` reads from each tensor except IQ4_NL: SHA-256 of float32."""
    rng = np.random.default_rng(6)
    writer = GGUFWriter(path, "llama")
    add_model_metadata(writer, COLUMNS)
    expected = {}
    for name, (kind, rows, _) in TENSORS.items():
        values = expected[name] = matrix(rng, rows)
        writer.add_tensor(name, encode(library, values, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm.weight", "output_norm.weight"):
        expected[name] = 1 + weights(rng, COLUMNS)
        writer.add_tensor(name, expected[name])
    finish(writer)

    read = {t.name: (t.tensor_type, dequantize(t.data, t.tensor_type)) for t in GGUFReader(path).tensors}
    assert read.keys() == expected.keys()
    for name, (kind, _, least) in TENSORS.items():
        found = sqnr(expected[name], read[name][1])
        assert read[name][0] == kind and found >= least, f"{name}: {found:.1f} dB"
    write_digests(
        path.with_suffix(".sha256"), {name: values for name, (kind, values) in read.items() if kind != Type.IQ4_NL}
    )
