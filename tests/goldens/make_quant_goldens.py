"""Blocks of every type and their f32 values as the `gguf` package computes them; read by tests/test_quant.c.

    make_quant_goldens.py OUT                    the committed file: fixed seed, 8 blocks a type
    make_quant_goldens.py --check TEST_QUANT     fresh random blocks, many of them, given to that program

A file is a run of records, all little-endian:

    8 bytes name, u32 direction, u32 elements, u32 bytes, bytes packed data, elements f32

direction 0: packed -> f32 (gguf.quants.dequantize); 1: f32 -> packed (gguf.quants.quantize).
"""
import argparse
import secrets
import struct
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, quants

# Where the f16 fields of a block stand.
SCALES = {
    T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
# Zero, minus zero, the ends of the subnormals, the largest, infinities, quiet and signalling NaN.
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0xFD55]


def record(kind, direction, packed, values):
    packed, values = np.ascontiguousarray(packed).view(np.uint8), np.ascontiguousarray(values, np.float32)
    head = struct.pack("<8sIII", kind.name.encode(), direction, values.size, packed.size)
    return head + packed.tobytes() + values.tobytes()


def blocks(rng, kind, n):
    """Random bytes; ordinary scales in the even blocks, special ones in turn in the odd blocks."""
    b = rng.integers(0, 256, (n, GGML_QUANT_SIZES[kind][1]), np.uint8)
    for i in range(n):
        for k, at in enumerate(SCALES[kind]):
            h = np.float16(rng.normal() * 0.05).view(np.uint16)
            if i % 2:
                h = np.uint16(SPECIAL[(i // 2 + 3 * k + rng.integers(len(SPECIAL))) % len(SPECIAL)])
            b[i, at], b[i, at + 1] = h & 0xFF, h >> 8
    return b


def floats(rng, n):
    """Every exponent, rounding ties of both 16-bit types, infinities and NaN."""
    u = rng.integers(0, 2**32, n, np.uint32)
    u[n // 4 : n // 2] &= np.uint32(0xFFFF8000)  # ties for bf16
    mid = u[n // 2 :]
    mid[:] = (mid & np.uint32(0x80FFF000)) | ((np.uint32(100) + mid % 50) << np.uint32(23))  # ties around f16's range
    u[:4] = [0x7F800000, 0xFF800000, 0x7FC00001, 0xFF800001]
    return u.view(np.float32)


def make(seed, n):
    rng, out = np.random.default_rng(seed), b""
    with np.errstate(all="ignore"):
        for kind in SCALES:
            b = blocks(rng, kind, n)
            out += record(kind, 0, b, quants.dequantize(b, kind))
        x = floats(rng, 64 * n)
        bits = rng.integers(0, 2**16, 64 * n, np.uint16)
        for kind in (T.F16, T.BF16):
            out += record(kind, 1, quants.quantize(x, kind), x)
            out += record(kind, 0, bits, quants.dequantize(bits.view(np.uint8), kind))
        x = (rng.normal(size=32 * n) * np.exp(rng.normal(size=n) * 8).repeat(32)).astype(np.float32)
        x[:32] = 0
        x[32:64] = np.arange(32) * 8 - 127  # halves after scaling
        x = np.clip(x, -8e6, 8e6)
        out += record(T.Q8_0, 1, quants.quantize(x, T.Q8_0), x)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check", metavar="TEST_QUANT")
    p.add_argument("out", nargs="?")
    a = p.parse_args()
    if a.out:
        with open(a.out, "wb") as f:
            f.write(make(20240627, 8))
    if a.check:
        seed = secrets.randbits(64)
        print("seed", seed)
        with tempfile.NamedTemporaryFile(suffix=".bin") as f:
            f.write(make(seed, 4000))
            f.flush()
            sys.exit(subprocess.run([a.check, f.name]).returncode)


main()
