"""Small checkpoints by the writers of the `safetensors` and `gguf` packages, and the reading of ours by their readers.

    make_format_goldens.py OUT_DIR                       the committed files, read by tests/test_safetensors.c and test_gguf.c
    make_format_goldens.py --check-safetensors TEST      runs `TEST --write DIR` and reads what our writer wrote
    make_format_goldens.py --check-gguf TEST             the same for GGUF

Byte i of the data of the tensor number k is (7 i + 31 k) mod 251 on both sides, so no values need to be stored twice.
"""
import argparse
import pathlib
import subprocess
import tempfile

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T, GGUFReader, GGUFValueType as V, GGUFWriter
from safetensors import safe_open
from safetensors.torch import save_file

ST_TENSORS = [
    ("model.embed_tokens.weight", torch.bfloat16, [5, 4]),
    ("model.norm.weight", torch.float32, [4]),
    ("scalar", torch.float32, []),
    ("empty", torch.float16, [0, 3]),
    ("half", torch.float16, [2, 1, 3]),
    ("ids", torch.int64, [3]),
    ("mask", torch.bool, [5]),
    ("scale \u00e9\u4e2d \"quoted\"", torch.float32, [1]),
]
GGUF_TENSORS = [  # name, type, shape outermost first (ne reversed)
    ("token_embd.weight", T.Q4_K, [3, 256]),
    ("blk.0.attn_norm.weight", T.F32, [7]),
    ("blk.0.attn_q.weight", T.Q8_0, [2, 64]),
    ("blk.0.attn_k.weight", T.F16, [3, 5]),
    ("blk.0.attn_v.weight", T.BF16, [1, 9]),
    ("blk.0.ffn_up.weight", T.Q6_K, [2, 256]),
    ("blk.0.ffn_down.weight", T.IQ4_NL, [2, 32]),
    ("cube", T.F32, [2, 3, 4]),
]


def pattern(k, n):
    return ((7 * np.arange(n) + 31 * k) % 251).astype(np.uint8)


def write_safetensors(out):
    tensors = {}
    for k, (name, dtype, shape) in enumerate(ST_TENSORS):
        data = pattern(k, int(np.prod(shape)) * dtype.itemsize)
        data = data & 1 if dtype == torch.bool else data
        x = torch.from_numpy(data).view(dtype) if data.size else torch.empty(0, dtype=dtype)
        tensors[name] = x.reshape(shape)
    save_file(tensors, out / "mixed.safetensors", {"format": "pt", "note": "by safetensors"})


def write_gguf(path, **split):
    w = GGUFWriter(path, "gemma2", **split)
    w.add_key_value("t.u8", 200, V.UINT8)
    w.add_key_value("t.i8", -100, V.INT8)
    w.add_key_value("t.u16", 60000, V.UINT16)
    w.add_key_value("t.i16", -30000, V.INT16)
    w.add_key_value("t.u32", 4000000000, V.UINT32)
    w.add_key_value("t.i32", -2000000000, V.INT32)
    w.add_key_value("t.f32", 0.15625, V.FLOAT32)
    w.add_key_value("t.bool", True, V.BOOL)
    w.add_key_value("t.string", "caf\u00e9 \u2581\u4e2d", V.STRING)
    w.add_key_value("t.empty", "", V.STRING)
    w.add_key_value("t.u64", 2**63 + 5, V.UINT64)
    w.add_key_value("t.i64", -(2**62), V.INT64)
    w.add_key_value("t.f64", 1 / 3, V.FLOAT64)
    w.add_key_value("a.string", ["", "a", "\u2581the", "<0x0A>"], V.ARRAY, V.STRING)
    w.add_key_value("a.f32", [0.5, -1000.0, 3e38], V.ARRAY, V.FLOAT32)
    w.add_key_value("a.i32", [1, -2, 3, 6], V.ARRAY, V.INT32)
    w.add_key_value("a.bool", [True, False, True], V.ARRAY, V.BOOL)
    w.add_key_value("a.u8", [0, 255], V.ARRAY, V.UINT8)
    w.add_key_value("a.i64", [-(2**40), 2**40], V.ARRAY, V.INT64)
    w.add_key_value("a.f64", [0.1], V.ARRAY, V.FLOAT64)
    for k, (name, kind, shape) in enumerate(GGUF_TENSORS):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows = [*shape[:-1], shape[-1] // block * size]
        data = pattern(k, int(np.prod(rows))).reshape(rows)
        if kind in (T.F32, T.F16):
            data = data.view(np.float32 if kind == T.F32 else np.float16)
            w.add_tensor(name, data)
        else:
            w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_safetensors(path):
    want = [("model.embed_tokens.weight", torch.bfloat16, [5, 4]), ("b \u00e9\"\\", torch.float32, [2, 3]),
            ("half", torch.float16, [3]), ("empty", torch.bfloat16, [0]), ("scalar", torch.float32, [])]
    with safe_open(path, "pt") as f:
        assert sorted(f.keys()) == sorted(n for n, _, _ in want), f.keys()
        assert f.metadata() == {"format": "pt", "by": "caf\u00e9"}, f.metadata()
        for k, (name, dtype, shape) in enumerate(want):
            x = f.get_tensor(name)
            assert x.dtype == dtype and list(x.shape) == shape, (name, x.dtype, x.shape)
            raw = x.contiguous().reshape(-1).view(torch.uint8).numpy()
            assert np.array_equal(raw, pattern(k, raw.size)), name
    assert path.stat().st_mode & 0o400


def check_gguf(path):
    r = GGUFReader(path)
    kv = {k: f for k, f in r.fields.items() if not k.startswith("GGUF.")}
    want = {"general.architecture": "gemma2", "u": 4000000000, "f": 0.15625, "b": True, "s": "caf\u00e9",
            "tokens": ["", "a", "\u2581the"], "scores": [0.5, -1000.0], "types": [1, -3], "none": []}
    assert list(kv) == list(want), list(kv)
    for k, v in want.items():
        if v != []:
            assert kv[k].contents() == v, (k, kv[k].contents())
    assert kv["u"].types == [V.UINT32] and kv["f"].types == [V.FLOAT32] and kv["b"].types == [V.BOOL]
    assert kv["types"].types == [V.ARRAY, V.INT32] and kv["scores"].types == [V.ARRAY, V.FLOAT32]
    tensors = [("token_embd.weight", T.Q8_0, [3, 32]), ("norm", T.F32, [7]), ("w", T.BF16, [3, 5]), ("h", T.F16, [1])]
    assert len(r.tensors) == len(tensors)
    for k, (x, (name, kind, shape)) in enumerate(zip(r.tensors, tensors)):
        assert x.name == name and x.tensor_type == kind and list(x.shape) == shape[::-1], (x.name, x.tensor_type, x.shape)
        assert x.data_offset % 32 == 0
        raw = np.frombuffer(x.data.tobytes(), np.uint8)
        assert np.array_equal(raw, pattern(k, raw.size)), name


def run_check(test, name, check):
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([test, "--write", d], check=True)
        check(pathlib.Path(d) / name)
    print("ok")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check-safetensors", metavar="TEST")
    p.add_argument("--check-gguf", metavar="TEST")
    p.add_argument("out", nargs="?", type=pathlib.Path)
    a = p.parse_args()
    if a.out:
        write_safetensors(a.out)
        write_gguf(a.out / "all.gguf")
        write_gguf(a.out / "split.gguf", split_max_tensors=3)
    if a.check_safetensors:
        run_check(a.check_safetensors, "ours.safetensors", check_safetensors)
    if a.check_gguf:
        run_check(a.check_gguf, "ours.gguf", check_gguf)


main()
