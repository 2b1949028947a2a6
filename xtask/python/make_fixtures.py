"""Writes the small source models of fixtures/sources with the formats' own libraries.

Run by `cargo xtask fixtures --generate`, which installs the pinned packages of requirements.txt and hands over
llama.cpp's library. Same packages, same bytes: weights come from a seeded generator and are heavy-tailed (Student t,
5 degrees of freedom), as trained ones are.
"""

import sys
from pathlib import Path

import numpy as np
import packed
from common import COLS, ROWS, add_model_metadata, b16, f16, f32, finish, save, weights, write_json
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize
from kquants import kquants_gguf
from llama_cpp import Library

MAX_BYTES = 200 * 1024


# --- GGUF ---------------------------------------------------------------------------------------------------------


def q6_k(values):
    """Q6_K blocks of rows of 256 values: gguf can read this type but not write it, so it checks us."""
    sub = values.reshape(-1, 16, 16)
    scale = np.abs(sub).max(axis=2) / 31
    d = (scale.max(axis=1, keepdims=True) / 127).astype(np.float16)
    scales = np.clip(np.round(scale / d.astype(np.float32)), 1, 127).astype(np.int8)
    step = d.astype(np.float32)[:, :, None] * scales[:, :, None]
    levels = (np.clip(np.round(sub / step), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = levels & 15, levels >> 4
    ql = np.stack([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    qh = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    parts = [ql.reshape(-1, 128), qh.reshape(-1, 64), scales.view(np.uint8), d.view(np.uint8)]
    blocks = np.concatenate(parts, axis=1).reshape(values.shape[0], -1)
    assert np.abs(dequantize(blocks, Type.Q6_K) - values).max() <= step.max()
    return blocks


def add(writer, name, values, kind):
    if kind in (Type.F32, Type.F16):
        writer.add_tensor(name, values.astype(np.float32 if kind == Type.F32 else np.float16))
        return
    blocks = q6_k(values) if kind == Type.Q6_K else quantize(values, kind)
    writer.add_tensor(name, blocks, raw_dtype=kind)


def add_tokenizer(writer):
    tokens = ["<unk>", "<s>", "</s>", "\u0120Paris", "\u00fc", "\u732b", "\U0001f980", "e\u0301"]
    tokens += [f"t{i}" for i in range(len(tokens), ROWS)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_scores([-0.5 * i for i in range(ROWS)])
    writer.add_token_types([3 if i < 3 else 1 for i in range(ROWS)])
    writer.add_token_merges(["t 1", "\u0120 P", "a r", "i s"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def add_every_value_type(writer):
    writer.add_uint8("test.u8", 255)
    writer.add_int8("test.i8", -128)
    writer.add_uint16("test.u16", 65535)
    writer.add_int16("test.i16", -32768)
    writer.add_uint32("test.u32", 2**32 - 1)
    writer.add_int32("test.i32", -(2**31))
    writer.add_uint64("test.u64", 2**64 - 1)
    writer.add_int64("test.i64", -(2**63))
    writer.add_float32("test.f32", 0.1)
    writer.add_float64("test.f64", 1e300)
    writer.add_bool("test.true", True)
    writer.add_bool("test.false", False)
    # "Cats & crabs" in four scripts, a quote, a line break; and a string of no bytes
    writer.add_string("test.unicode", 'K\u00e4tzchen \u732b \u0643\u0644\u0628 \U0001f980 "q"\n')
    writer.add_key_value("test.empty", "", GGUFValueType.STRING)
    writer.add_array("test.bools", [True, False, True])
    writer.add_array("test.nested", [[1, 2, 3], [4], [5, 6]])
    writer.add_array("test.nested_strings", [["a", "b"], ["\u00e7"]])
    writer.add_array("test.nested_twice", [[[1.5, 2.5], [3.5]], [[4.5]]])


def tiny_gguf(path):
    rng = np.random.default_rng(1)
    writer = GGUFWriter(path, "llama")
    add_model_metadata(writer)
    add_tokenizer(writer)
    add_every_value_type(writer)
    add(writer, "token_embd.weight", weights(rng, ROWS, COLS), Type.Q8_0)
    add(writer, "blk.0.attn_norm.weight", 1 + weights(rng, COLS), Type.F32)
    add(writer, "blk.0.attn_q.weight", weights(rng, ROWS, COLS), Type.F16)
    add(writer, "blk.0.attn_k.weight", weights(rng, ROWS, COLS), Type.BF16)
    add(writer, "blk.0.attn_v.weight", weights(rng, ROWS, COLS), Type.Q4_0)
    add(writer, "blk.0.attn_output.weight", weights(rng, ROWS, COLS), Type.Q4_1)
    add(writer, "blk.0.ffn_gate.weight", weights(rng, ROWS, COLS), Type.Q5_0)
    add(writer, "blk.0.ffn_down.weight", weights(rng, 8, 256), Type.Q6_K)
    add(writer, "blk.0.conv.weight", weights(rng, 3, 5, 7), Type.F16)
    add(writer, "output_norm.weight", 1 + weights(rng, COLS), Type.F32)
    finish(writer)
    names = [t.name for t in GGUFReader(path).tensors]
    assert len(names) == 10, names


def tiny_align64_gguf(path):
    rng = np.random.default_rng(2)
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    add_model_metadata(writer)
    # sizes that are no multiples of 64 bytes, so that there is padding
    add(writer, "output_norm.weight", 1 + weights(rng, 33), Type.F32)
    add(writer, "blk.0.attn_q.weight", weights(rng, 7, 32), Type.Q8_0)
    add(writer, "blk.0.attn_k.weight", weights(rng, 5, 64), Type.Q4_0)
    add(writer, "blk.0.attn_v.weight", weights(rng, 7, 13), Type.F16)
    finish(writer)
    tensors = GGUFReader(path).tensors
    assert all(t.data_offset % 64 == 0 for t in tensors)


def blocks_gguf(path):
    """Block types large enough to gain by coding; one has an outlier, one constant rows, one rows that are no power of two."""
    rng = np.random.default_rng(4)
    writer = GGUFWriter(path, "llama")
    add_model_metadata(writer)
    outlier = weights(rng, 96, 192)
    outlier[17, 33] = 40.0
    add(writer, "token_embd.weight", outlier, Type.Q8_0)
    add(writer, "blk.0.attn_q.weight", weights(rng, 129, 160), Type.Q4_0)
    constant = weights(rng, 128, 192)
    constant[:64] = 0.25
    add(writer, "blk.0.attn_k.weight", constant, Type.Q4_1)
    add(writer, "blk.0.attn_v.weight", weights(rng, 128, 192), Type.Q4_1)
    add(writer, "output_norm.weight", 1 + weights(rng, 33), Type.F32)
    finish(writer)


# --- safetensors --------------------------------------------------------------------------------------------------


def e5m2(values):
    return ("float8_e5m2", (values.astype(np.float16).view(np.uint16) >> 8).astype(np.uint8))


def e4m3(values):
    bits = (values / 256).astype(np.float16).view(np.uint16)
    return ("float8_e4m3fn", (bits >> 7 & 0x7F | bits >> 8 & 0x80).astype(np.uint8))


def floats_safetensors(path):
    """Every kind of float that is coded by its bits, with all that floats can be."""
    rng = np.random.default_rng(5)
    wild = np.concatenate([np.full(COLS, c) for c in (0.0, -0.0, np.inf, -np.inf, 1e-40, -6e-8, 3e38)])
    odd = {name: make(weights(rng, n, COLS)) for name, make, n in (("bf16", b16, COLS), ("f16", f16, ROWS))}
    for _, bits in odd.values():
        bits = bits.view(np.uint16)
        bits[3], bits[4], bits[5, ::7], bits[6, 1] = 0, 0x8000, rng.integers(0, 1 << 16, 14), 0x7FC1
    with np.errstate(over="ignore"):
        tensors = {
            "bf16.odd": odd["bf16"],
            "f16.odd": odd["f16"],
            "bf16.wild": b16(wild.reshape(-1, COLS).astype(np.float32)),
            "bf16.equal": b16(np.full((32, 48), 0.125, dtype=np.float32)),
            "bf16.norm": b16(1 + weights(rng, COLS)),
            "f8.e4m3": e4m3(weights(rng, COLS, COLS)),
            "f8.e5m2": e5m2(weights(rng, ROWS, COLS)),
            "f8.any": ("float8_e4m3fn", rng.integers(0, 256, (40, 40), dtype=np.uint8)),
            "f8.small": e5m2(weights(rng, 3, 5)),
        }
    save(path, tensors, {"format": "pt"})


def tiny_safetensors(path):
    rng = np.random.default_rng(3)
    tensors = {
        "embed.weight": f32(weights(rng, 32, 64)),
        "layer.q.weight": f16(weights(rng, ROWS, COLS)),
        "layer.k.weight": b16(weights(rng, ROWS, COLS)),
        "layer.odd.weight": f32(weights(rng, 7, 13)),
        "layer.odd_bf16.weight": b16(weights(rng, 13, 7)),
        "layer.conv.weight": f32(weights(rng, 4, 5, 6)),
        "layer.norm.weight": f32(1 + weights(rng, COLS)),
        "layer.empty": f32(weights(rng, 0, 5)),
        "scale": f32(np.array(0.125, dtype=np.float32)),
        "position_ids": ("int64", np.arange(-3, 29, dtype=np.int64).reshape(1, 32)),
    }
    save(path, tensors, {"format": "pt"})


def sharded(folder):
    rng = np.random.default_rng(4)
    folder.mkdir(exist_ok=True)
    shards = [
        {
            "model.embed_tokens.weight": b16(weights(rng, ROWS, COLS)),
            "model.layers.0.self_attn.q_proj.weight": b16(weights(rng, 48, COLS)),
            "model.layers.0.input_layernorm.weight": b16(1 + weights(rng, COLS)),
        },
        {
            "model.layers.0.mlp.up_proj.weight": f16(weights(rng, 7, COLS)),
            "model.layers.0.mlp.down_proj.weight": f32(weights(rng, COLS, 7)),
            "model.norm.weight": f32(1 + weights(rng, COLS)),
        },
    ]
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save(folder / name, tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(sorted(tensors), name)
        total += sum(array.nbytes for _, array in tensors.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": COLS,
        "intermediate_size": 7,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": ROWS,
        "torch_dtype": "bfloat16",
    }
    write_json(folder / "config.json", config)
    vocabulary = {f"t{i}": i for i in range(ROWS)}
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"}}
    write_json(folder / "tokenizer.json", tokenizer)


def main():
    folder = Path(sys.argv[1])
    tiny_gguf(folder / "tiny.gguf")
    tiny_align64_gguf(folder / "tiny-align64.gguf")
    blocks_gguf(folder / "blocks.gguf")
    tiny_safetensors(folder / "tiny.safetensors")
    floats_safetensors(folder / "floats.safetensors")
    sharded(folder / "sharded")
    kquants_gguf(folder / "kquants.gguf", Library(sys.argv[2]))
    packed.write_all(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        print(f"{size:>7} {path.relative_to(folder)}")
        assert size <= MAX_BYTES, f"{path} has more than {MAX_BYTES} bytes"


if __name__ == "__main__":
    main()
