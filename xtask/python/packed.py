"""Folders of models whose weights are packed four or eight bits each: MLX, GPTQ, AWQ and bitsandbytes' NF4.

MLX quantizes itself. The tools of the other three need PyTorch and mostly a GPU, so their layouts are written here from
their documentation; each is unpacked again in another way and compared.
"""

import json

import mlx.core as mx
import numpy as np
from common import b16, bf16, f16, save, sqnr, weights, write_digests, write_json

NORM = "model.layers.0.input_layernorm.weight"
OUT, IN = 128, 512
EMBEDDING, HEAD = 64, 16  # rows
NIBBLES = 4 * np.arange(8, dtype=np.uint32)


def config(folder, dtype, **quantization):
    values = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": IN,
        "num_hidden_layers": 1,
        "torch_dtype": dtype,
    }
    write_json(folder / "config.json", values | quantization)


def projection(name):
    return f"model.layers.0.self_attn.{name}"


def check(values, coded, least):
    found = sqnr(values, coded)
    assert found >= least, f"{found:.1f} dB"


def pack(nibbles):
    """Eight nibbles of the last axis to a word, the first in the lowest bits."""
    words = nibbles.reshape(*nibbles.shape[:-1], -1, 8).astype(np.uint32) << NIBBLES
    return np.bitwise_or.reduce(words, axis=-1)


def unpack(words):
    """The nibbles of words, by way of bytes; the last axis grows eightfold."""
    octets = np.ascontiguousarray(words).astype("<u4").view(np.uint8)
    return np.stack([octets % 16, octets // 16], axis=-1).reshape(*words.shape[:-1], -1)


# --- MLX ----------------------------------------------------------------------------------------------------------


def mlx_layer(values, dtype, group, bits):
    """What MLX stores for a layer, and the weights it stands for: level times scale, plus bias, in float32."""
    weight, scales, biases = mx.quantize(mx.array(values).astype(dtype), group_size=group, bits=bits)
    wide = [np.array(part.astype(mx.float32)) for part in (scales, biases)]
    octets = np.array(weight).view(np.uint8)
    levels = octets if bits == 8 else np.stack([octets & 15, octets >> 4], axis=-1)
    levels = levels.reshape(len(values), -1, group).astype(np.float32)
    coded = (levels * wide[0][:, :, None] + wide[1][:, :, None]).reshape(values.shape)
    theirs = mx.dequantize(weight, *map(mx.array, wide), group_size=group, bits=bits)
    assert np.allclose(np.array(theirs), coded, rtol=1e-6, atol=1e-8)
    check(values, coded, 18.5 if bits == 4 else 40.0)
    return {"weight": weight, "scales": scales, "biases": biases}, coded


def mlx(folder, bits, group):
    """Two layers, an embedding quantized like them, a layer left as it is and a norm."""
    rng = np.random.default_rng(7 + bits)
    folder.mkdir(exist_ok=True)
    tensors, coded = {}, {}
    layers = [
        ("model.embed_tokens", EMBEDDING, mx.bfloat16),
        (projection("q_proj"), OUT if bits == 4 else EMBEDDING, mx.bfloat16),
        (projection("k_proj"), EMBEDDING, mx.float16),
    ]
    for name, rows, dtype in layers:
        parts, coded[f"{name}.weight"] = mlx_layer(weights(rng, rows, IN), dtype, group, bits)
        tensors |= {f"{name}.{part}": array for part, array in parts.items()}
    tensors["lm_head.weight"] = mx.array(weights(rng, HEAD, IN)).astype(mx.bfloat16)
    tensors[NORM] = mx.array(1 + weights(rng, IN)).astype(mx.bfloat16)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})
    quantization = {"group_size": group, "bits": bits}
    config(folder, "bfloat16", quantization=quantization, quantization_config=quantization)
    write_digests(folder.with_suffix(".sha256"), coded)


# --- GPTQ and AWQ -------------------------------------------------------------------------------------------------


def plain_tensors(rng, make):
    """What these models do not quantize."""
    return {
        "model.embed_tokens.weight": make(weights(rng, HEAD, IN)),
        NORM: make(1 + weights(rng, IN)),
        "lm_head.weight": make(weights(rng, HEAD, IN)),
    }


def fit(values, groups, symmetric):
    """Levels [in, out] of weights [in, out]; scales and zero points [groups, out]; `groups` is the group of each row."""
    count = groups.max() + 1
    low = np.stack([np.minimum(values[groups == g].min(axis=0), 0) for g in range(count)])
    high = np.stack([np.maximum(values[groups == g].max(axis=0), 0) for g in range(count)])
    if symmetric:
        high = np.maximum(high, -low)
        low = -high
    scales = ((high - low) / 15).astype(np.float16)
    wide = scales.astype(np.float32)
    # a stored zero point of -1 means different things to different readers
    zeros = np.full(low.shape, 8.0) if symmetric else np.clip(np.round(-low / wide), 1, 15)
    levels = np.clip(np.round(values / wide[groups]) + zeros[groups], 0, 15).astype(np.uint32)
    return levels, scales, zeros.astype(np.uint32)


def decode(levels, scales, zeros, groups):
    """Weights [out, in]: scale times (level less zero point), in float32."""
    difference = levels.astype(np.float32) - zeros[groups].astype(np.float32)
    return np.ascontiguousarray((scales.astype(np.float32)[groups] * difference).T)


def gptq_layer(rng, rows, group, ordered, symmetric):
    """Words hold eight rows of a column, zero points one less than they are; `ordered`: groups are no runs of rows."""
    values = weights(rng, IN, rows)
    groups = np.arange(IN, dtype=np.int32) // group
    if ordered:
        groups = rng.permutation(groups)
    levels, scales, zeros = fit(values, groups, symmetric)
    qweight = np.ascontiguousarray(pack(np.ascontiguousarray(levels.T)).T)
    qzeros = pack(zeros - 1)
    coded = decode(unpack(np.ascontiguousarray(qweight.T)).T, scales, unpack(qzeros) + 1, groups)
    assert np.array_equal(coded, decode(levels, scales, zeros, groups))
    check(values.T, coded, 17.0)
    parts = {
        "qweight": ("int32", qweight.view(np.int32)),
        "qzeros": ("int32", qzeros.view(np.int32)),
        "scales": ("float16", scales),
        "g_idx": ("int32", groups),
    }
    return parts, coded


def gptq(folder, seed, group, ordered, symmetric):
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    tensors, coded = plain_tensors(rng, f16), {}
    # even a model with ordered groups may have a layer where they came out in order
    for name, rows, shuffled in ((projection("q_proj"), OUT, ordered), (projection("k_proj"), EMBEDDING, False)):
        parts, coded[f"{name}.weight"] = gptq_layer(rng, rows, group, shuffled, symmetric)
        tensors |= {f"{name}.{part}": array for part, array in parts.items()}
    tensors[projection("q_proj.bias")] = f16(weights(rng, OUT))
    save(folder / "model.safetensors", tensors, {"format": "pt"})
    quantization = {
        "bits": 4,
        "checkpoint_format": "gptq",
        "damp_percent": 0.01,
        "desc_act": ordered,
        "group_size": group,
        "quant_method": "gptq",
        "sym": symmetric,
        "true_sequential": True,
    }
    config(folder, "float16", quantization_config=quantization)
    write_digests(folder.with_suffix(".sha256"), coded)


AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word is this one of its eight columns


def awq_pack(nibbles):
    return pack(nibbles.reshape(len(nibbles), -1, 8)[:, :, AWQ_ORDER].reshape(len(nibbles), -1))


def awq_unpack(words):
    nibbles = unpack(words).reshape(len(words), -1, 8)
    ordered = np.empty_like(nibbles)
    for place, column in enumerate(AWQ_ORDER):
        ordered[:, :, column] = nibbles[:, :, place]
    return ordered.reshape(len(words), -1)


def awq(folder, group):
    rng = np.random.default_rng(21)
    folder.mkdir(exist_ok=True)
    tensors, coded = plain_tensors(rng, f16), {}
    groups = np.arange(IN) // group
    for name, rows in ((projection("q_proj"), OUT), (projection("k_proj"), EMBEDDING)):
        values = weights(rng, IN, rows)
        levels, scales, zeros = fit(values, groups, False)
        qweight, qzeros = awq_pack(levels), awq_pack(zeros)
        layer = coded[f"{name}.weight"] = decode(awq_unpack(qweight), scales, awq_unpack(qzeros), groups)
        assert np.array_equal(layer, decode(levels, scales, zeros, groups))
        check(values.T, layer, 17.0)
        tensors[f"{name}.qweight"] = ("int32", qweight.view(np.int32))
        tensors[f"{name}.qzeros"] = ("int32", qzeros.view(np.int32))
        tensors[f"{name}.scales"] = ("float16", scales)
    save(folder / "model.safetensors", tensors, {"format": "pt"})
    quantization = {
        "bits": 4,
        "group_size": group,
        "modules_to_not_convert": None,
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }
    config(folder, "float16", quantization_config=quantization)
    write_digests(folder.with_suffix(".sha256"), coded)


# --- NF4 ----------------------------------------------------------------------------------------------------------

# quantiles of the normal distribution, with an exact zero: QLoRA, appendix E
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
BLOCK, NESTED_BLOCK = 64, 256


def decades():
    """The 256 levels of nested scales: in each of seven decades the middles of equal parts, twice as many each time."""
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        levels += [*middles, *-middles]
    return np.sort(np.array(levels)).astype(np.float32)


def nearest(values, levels):
    """Index of the level nearest to each value; levels ascend."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values).astype(np.uint8)


def nested_scales(absmax):
    """The parts that stand for scales, and the scales that they stand for."""
    levels = decades()
    offset = absmax.mean(dtype=np.float32)
    blocks = np.zeros(-(-absmax.size // NESTED_BLOCK) * NESTED_BLOCK, dtype=np.float32)
    blocks[: absmax.size] = absmax - offset
    blocks = blocks.reshape(-1, NESTED_BLOCK)
    outer = np.abs(blocks).max(axis=1)
    codes = nearest(blocks / outer[:, None], levels).ravel()[: absmax.size]
    scales = levels[codes] * np.repeat(outer, NESTED_BLOCK)[: absmax.size] + offset
    parts = {
        "absmax": ("uint8", codes),
        "nested_absmax": ("float32", outer),
        "nested_quant_map": ("float32", levels),
    }
    state = {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": float(offset)}
    return parts, state, scales


def nf4_layer(values, dtype, nested):
    """Two weights to a byte, the first in the high half; a scale for each 64 weights of the flattened matrix."""
    code = np.array(NF4, dtype=np.float32)
    blocks = values.reshape(-1, BLOCK)
    absmax = np.abs(blocks).max(axis=1)
    levels = nearest(blocks / absmax[:, None], code).reshape(-1, 2)
    packed = (levels[:, :1] << 4 | levels[:, 1:]).astype(np.uint8)
    parts, state, scales = nested_scales(absmax) if nested else ({"absmax": ("float32", absmax)}, {}, absmax)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": dtype, "shape": list(values.shape)} | state
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    parts |= {
        "": ("uint8", packed),
        "quant_map": ("float32", code),
        "quant_state.bitsandbytes__nf4": ("uint8", text),
    }
    unpacked = np.array([half for byte in packed.ravel() for half in divmod(int(byte), 16)])
    coded = (code[unpacked].reshape(-1, BLOCK) * scales[:, None]).reshape(values.shape)
    check(values, coded, 19.0)
    return parts, coded


def nf4(folder):
    rng = np.random.default_rng(22)
    folder.mkdir(exist_ok=True)
    tensors, coded = plain_tensors(rng, b16), {}
    layers = ((projection("q_proj"), OUT, "bfloat16", True), (projection("k_proj"), EMBEDDING, "float16", False))
    for name, rows, dtype, nested in layers:
        # quantized from what a half-precision model would hold
        values = weights(rng, rows, IN)
        values = widen(values) if dtype == "bfloat16" else values.astype(np.float16).astype(np.float32)
        parts, coded[f"{name}.weight"] = nf4_layer(values, dtype, nested)
        tensors |= {f"{name}.weight.{part}".rstrip("."): array for part, array in parts.items()}
    save(folder / "model.safetensors", tensors, {"format": "pt"})
    quantization = {
        "_load_in_4bit": True,
        "_load_in_8bit": False,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "load_in_4bit": True,
        "load_in_8bit": False,
        "quant_method": "bitsandbytes",
    }
    config(folder, "bfloat16", quantization_config=quantization)
    write_digests(folder.with_suffix(".sha256"), coded)


def widen(values):
    """float32 rounded to BF16."""
    return (bf16(values).astype(np.uint32) << 16).view(np.float32)


def write_all(folder):
    mlx(folder / "mlx4", bits=4, group=64)
    mlx(folder / "mlx8", bits=8, group=64)
    gptq(folder / "gptq4", seed=18, group=128, ordered=False, symmetric=False)
    gptq(folder / "gptq4-order", seed=19, group=64, ordered=True, symmetric=True)
    awq(folder / "awq4", group=128)
    nf4(folder / "nf4")
