"""Weights as llama.cpp's formats have them, by its own quantizers, from the libraries that llama-cpp-python builds.

    formats.py FORMAT BASE TARGET [STATISTICS]

BASE is a safetensors file of F32 with the linear layers of a decoder, under GGUF's names; TARGET becomes one with the weights that
llama.cpp would compute with, and a JSON object of what they take is printed. STATISTICS, of `ecq convert --statistics`, gives
the importance matrix: the mean squared input of each column. FORMAT is a name below, or F32, which changes nothing.

Formats with blocks of 256 take as many rows together as make whole blocks, where a row is no multiple of that: llama.cpp itself
would fall back to wider types there, and the formats would not be seen at their own size.
"""

import ctypes
import json
import math
import os
import re
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path

import llama_cpp
import numpy

# `tensor_requires_imatrix` of llama.cpp's src/llama-quant.cpp: it refuses these without one
NEEDS_MATRIX = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"}
LAYER = re.compile(r"blk\.(\d+)\.(attn_q|attn_k|attn_v|attn_output|ffn_gate|ffn_up|ffn_down)\.weight")


class Traits(ctypes.Structure):
    """`struct ggml_type_traits`."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]


def library():
    folder = Path(llama_cpp.__file__).parent / "lib"
    found = [path for path in sorted(folder.iterdir()) if re.match(r"(lib)?ggml-base\.(so|dylib|dll)", path.name)]
    if not found:
        raise SystemExit(f"llama.cpp: no ggml-base in {folder}")
    native = ctypes.CDLL(str(found[0]))
    native.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    native.ggml_quantize_chunk.restype = ctypes.c_size_t
    sizes = [ctypes.c_int64] * 3
    native.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *sizes, ctypes.c_void_p]
    return native


NATIVE = library()
# numbers of `enum ggml_type` by name; all that are used here are among the first
TYPES = {(NATIVE.ggml_get_type_traits(i).contents.name or b"").decode().upper(): i for i in range(32)}


def more_bits(layer, layers):
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def chosen(name, role, layer, layers, matrix):
    """The type of a layer: `llama_tensor_get_type_impl` of llama.cpp's src/llama-quant.cpp, for a dense model of the Llama
    family with fewer than four heads of queries for one of keys."""
    early = layer < layers // 8
    rules = {
        "Q5_K_M": {role: "Q6_K" for role in ("attn_v", "ffn_down") if more_bits(layer, layers)},
        "Q4_K_M": {role: "Q6_K" for role in ("attn_v", "ffn_down") if more_bits(layer, layers)},
        "Q3_K_M": {
            "attn_v": "Q5_K" if layer < 2 else "Q4_K",
            "ffn_down": "Q5_K" if layer < layers // 16 else "Q4_K",
            "attn_output": "Q4_K",
        },
        "Q2_K": {"attn_v": "Q3_K", "ffn_down": "Q3_K", "attn_output": "Q3_K"},
        "Q4_0": {"ffn_down": "Q4_1"} if matrix and early else {},
        "IQ4_XS": {"ffn_down": "Q5_K"} if early and not matrix else {},
        "IQ3_XXS": {"attn_q": "IQ2_S", "attn_k": "IQ2_S", "attn_output": "IQ3_S"},
    }
    return rules.get(name, {}).get(role, name.removesuffix("_M"))


def quantized(kind, weights, importance):
    """The weights of a type, and its bytes."""
    if kind == "F32":
        return weights, weights.nbytes
    if kind not in TYPES:
        raise SystemExit(f"llama.cpp: no format {kind}")
    number = TYPES[kind]
    traits = NATIVE.ggml_get_type_traits(number).contents
    rows, columns = weights.shape
    together = traits.block // math.gcd(traits.block, columns)
    if rows % together:
        raise SystemExit(f"llama.cpp: {rows} rows of {columns} make no whole blocks of {kind}")
    rows, columns = rows // together, columns * together
    if importance is not None:
        importance = numpy.tile(importance, together)
    elif kind in NEEDS_MATRIX:
        raise SystemExit(f"llama.cpp: {kind} needs an importance matrix")
    weights = numpy.ascontiguousarray(weights, "<f4")
    size = weights.size // traits.block * traits.bytes
    blocks, found = ctypes.create_string_buffer(size), numpy.empty_like(weights)
    matrix = None if importance is None else importance.ctypes.data
    written = NATIVE.ggml_quantize_chunk(number, weights.ctypes.data, blocks, 0, rows, columns, matrix)
    if written != size:
        raise SystemExit(f"llama.cpp: {written} bytes of {kind}, not {size}")
    traits.to_float(ctypes.addressof(blocks), found.ctypes.data, weights.size)
    if not numpy.isfinite(found).all():
        raise SystemExit(f"llama.cpp: weights as {kind} are not finite")
    return found, size


class Tensors:
    """A safetensors file of F32."""

    def __init__(self, path):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self.header = json.loads(file.read(length))
        self.about = self.header.pop("__metadata__", {})
        self.data = numpy.memmap(path, "u1", "r", 8 + length)

    def __getitem__(self, name):
        entry = self.header[name]
        if entry["dtype"] != "F32":
            raise SystemExit(f"{name}: expected F32, found {entry['dtype']}")
        first, end = entry["data_offsets"]
        return self.data[first:end].view("<f4").reshape(entry["shape"])


def importances(path):
    """The mean squared input of each column, by the tensor's name."""
    statistics = Tensors(path)
    inputs = json.loads(statistics.about["ecq_statistics"])["inputs"]
    return {name: diagonal(statistics[of]) for name, of in inputs.items() if of and LAYER.fullmatch(name)}


def diagonal(triangle):
    """That of a symmetric matrix whose rows are there from the diagonal on."""
    size = (math.isqrt(8 * triangle.size + 1) - 1) // 2
    rows = numpy.arange(size)
    return triangle[rows * size - rows * (rows - 1) // 2]


def main():
    name, base, target, *statistics = sys.argv[1:]
    base = Tensors(base)
    matrix = importances(statistics[0]) if statistics else {}
    names = sorted(filter(LAYER.fullmatch, base.header))
    layers = 1 + max(int(LAYER.fullmatch(tensor)[1]) for tensor in names)
    header, end = {}, 0
    for tensor in names:
        shape = base.header[tensor]["shape"]
        size = 4 * math.prod(shape)
        header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(target, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    out = numpy.memmap(target, "u1", "r+", 8 + len(text))

    def one(tensor):
        layer, role = LAYER.fullmatch(tensor).groups()
        kind = chosen(name, role, int(layer), layers, bool(matrix))
        # a copy: the map is not aligned
        importance = numpy.array(matrix[tensor], "<f4") if matrix else None
        found, size = quantized(kind, numpy.array(base[tensor]), importance)
        first, end = header[tensor]["data_offsets"]
        out[first:end] = found.reshape(-1).view("u1")
        return kind, size

    with ThreadPool(os.cpu_count()) as pool:
        done = pool.map(one, names, chunksize=1)
    out.flush()
    kinds = sorted({kind for kind, _ in done})
    types = {kind: sum(kind == other for other, _ in done) for kind in kinds}
    json.dump({"bytes": sum(size for _, size in done), "weights": end // 4, "types": types}, sys.stdout)


if __name__ == "__main__":
    main()
