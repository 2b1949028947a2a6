"""What every writer of fixtures needs: seeded weights, files written by the formats' own libraries, checks."""

import hashlib
import json

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize
from safetensors import TensorSpec, deserialize, serialize

ROWS, COLS = 64, 96


def weights(rng, *shape):
    return (0.02 * rng.standard_t(5, shape)).astype(np.float32)


def bf16(values):
    """The BF16 bits of float32 values, as gguf rounds them."""
    return quantize(values, Type.BF16).view(np.uint16)


def sqnr(values, coded):
    """Signal to quantization noise, in dB."""
    values = values.astype(np.float64)
    return 10 * np.log10((values**2).sum() / ((values - coded) ** 2).sum())


# --- files --------------------------------------------------------------------------------------------------------


def add_model_metadata(writer, columns=COLS):
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(columns)
    writer.add_block_count(1)
    writer.add_feed_forward_length(ROWS)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save(path, tensors, metadata):
    """`tensors`: name -> (dtype, array of the bits). One metadata key: the library does not order several."""
    arrays = {name: np.ascontiguousarray(array) for name, (_, array) in tensors.items()}
    specs = {
        name: TensorSpec(dtype=dtype, shape=arr.shape, data_ptr=arrays[name].ctypes.data, data_len=arr.nbytes)
        for name, (dtype, arr) in tensors.items()
    }
    data = bytes(serialize(specs, metadata=metadata))
    found = {name: bytes(info["data"]) for name, info in deserialize(data)}
    assert found == {name: array.tobytes() for name, (_, array) in tensors.items()}
    path.write_bytes(data)


def f32(values):
    return ("float32", values)


def f16(values):
    return ("float16", values.astype(np.float16))


def b16(values):
    return ("bfloat16", bf16(values))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_digests(path, tensors):
    """SHA-256 of each tensor's values as little-endian float32 in row-major order, a line a tensor."""
    lines = []
    for name, values in sorted(tensors.items()):
        assert values.dtype == np.float32, f"{name} is {values.dtype}"
        lines.append(f"{hashlib.sha256(values.astype('<f4').tobytes()).hexdigest()}  {name}\n")
    path.write_text("".join(lines), encoding="utf-8")
