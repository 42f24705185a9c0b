"""Packs random blocks with the gguf package and with ours; the types that follow ggml's rule must agree bit for bit.

    python check_quantize.py PATH_OF_test_quantize
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np


def blocks():
    rng = np.random.default_rng(7)
    x = rng.normal(0, 0.02, (256, 1024)).astype(np.float32)
    x[::3] *= rng.lognormal(0, 3, x[::3].shape).astype(np.float32)
    x[5] = 0
    x[6] = 0.25
    x[7] = -0.25
    x[8] = np.abs(x[8])
    return x


def main():
    program = sys.argv[1]
    x = blocks()
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        source, packed = Path(folder, "x.f32"), Path(folder, "packed")
        source.write_bytes(x.tobytes())
        for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
            kind = gguf.GGMLQuantizationType[name]
            want = gguf.quants.quantize(x, kind).tobytes()
            subprocess.run([program, name, source, packed], check=True)
            same = packed.read_bytes() == want
            print(f"{name}\t{len(want)} bytes\t{'same' if same else 'DIFFERENT'}")
            bad += [] if same else [name]
        for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"):  # our own rule: only that others read the same values
            kind = gguf.GGMLQuantizationType[name]
            subprocess.run([program, name, source, packed], check=True)
            rows = np.frombuffer(packed.read_bytes(), np.uint8).reshape(256, -1)
            y = gguf.quants.dequantize(rows, kind)
            plain = np.delete(np.arange(256), np.r_[0:256:3, 5:9])
            error = np.linalg.norm((y - x)[plain]) / np.linalg.norm(x[plain])
            bound = 1.4 / {"Q2_K": 3, "Q3_K": 7, "Q4_K": 15, "Q5_K": 31, "Q6_K": 63}[name]  # 2 crest / (levels sqrt 12), crest 2.4
            print(f"{name}\terror {error:.4f}\t{'fine' if error < bound else 'TOO LARGE'}")
            bad += [] if error < bound else [name]
    sys.exit(f"not as the gguf package: {', '.join(bad)}" if bad else 0)


main()
