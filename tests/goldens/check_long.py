"""Positions beyond the real window: `lapidary trace` against transformers on 4200 tokens with a window of 4096.

    python tests/goldens/check_long.py LAPIDARY

The model is made on the spot: two layers, one sliding and one global, 8192 positions.  Short prompts cannot see a
window of 4096 that is off by one, or rotary angles that drift; so the test first proves that it could: transformers
with windows of 4095 and 4097 must be far from transformers with 4096.  Needs about 1 GB.
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

from golden_models import DEFAULTS, load, random_weights, write_model
from hf_sites import record

N, WINDOW, TOLERANCE = 4200, 4096, 2e-5
SITES = {"q_rot": "attn.hook_rot_q", "z": "attn.hook_z", "resid_post": "hook_resid_post"}


def row_errors(a, b):
    a, b = a.double().flatten(1), b.double().flatten(1)
    return (a - b).norm(dim=1) / b.norm(dim=1)


def main(lapidary):
    torch.set_num_threads(1)
    c = DEFAULTS | dict(seed=11, d=16, f=24, H=1, G=1, E=16, L=2, V=100, qpas=4, window=WINDOW, positions=8192,
                        dtype="float32", scale=4.5)
    names = [f"blocks.{l}.{site}" for l in range(c["L"]) for site in SITES.values()] + ["logits"]
    ids = [2] + torch.randint(3, c["V"], (N - 1,), generator=torch.Generator().manual_seed(12)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_model(folder / "model", c, random_weights(c))
        model = load(folder / "model")
        want = record(model, ids, lambda name: name in names)
        for other in WINDOW - 1, WINDOW + 1:
            model.config.sliding_window = other
            moved = record(model, ids, lambda name: name == "blocks.0.attn.hook_z")["blocks.0.attn.hook_z"]
            errors = row_errors(moved, want["blocks.0.attn.hook_z"])
            print(f"window {other}: z moves by up to {errors.max():.1e}")
            assert errors[:WINDOW - 1].max() == 0 and errors[WINDOW:].max() > 100 * TOLERANCE
        subprocess.run([lapidary, "trace", "-q", "-m", folder / "model", "--tokens", ",".join(map(str, ids)),
                        "--sites", ",".join([*SITES, "logits"]), "--layers", "all",
                        "-o", folder / "out.safetensors"], check=True, stdout=subprocess.DEVNULL)
        got = load_file(folder / "out.safetensors")
    worst = 0
    for name in names:
        errors = row_errors(got[name], want[name])
        assert len(errors) == N
        worst = max(worst, float(errors.max()))
        print(f"{name:28} worst row {int(errors.argmax()):4}: {errors.max():.1e}")
    return worst > TOLERANCE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
