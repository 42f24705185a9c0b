"""`lapidary trace` and `lapidary generate` on the golden models, read with other people's packages and compared with what
transformers computed (expect.safetensors): every site and layer of every prompt, masks included, .npy too, and greedy text.

    python check_trace.py PATH_OF_lapidary
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open

MODELS = Path(__file__).parent / "models"
TOL = 2e-5  # ||a - b|| / ||b|| per row, as in test_goldens.c
COMPLETE = ("gqa4", "hot", "mha", "nocap", "plain", "wide")  # the others hold a few sites only


def run(program, *args):
    return subprocess.run([program, *map(str, args)], check=True, stdout=subprocess.PIPE).stdout.decode()


def ids_of(x):
    return ",".join(str(int(i)) for i in x)


def worst_row(a, b):
    assert a.shape == b.shape, (a.shape, b.shape)
    a, b = (x.astype(np.float64).reshape(x.shape[0], -1) for x in (a, b))
    size = np.linalg.norm(b, axis=1)
    return (np.linalg.norm(a - b, axis=1) / np.where(size > 0, size, 1)).max()


def unmask(scores, name, config):
    """-inf exactly where a key is masked; the golden files have 0 there."""
    n, layer = len(scores), int(name.split(".")[1])
    query, key = np.arange(n)[:, None], np.arange(n)[None]
    masked = key > query
    kinds = config.get("layer_types")
    if kinds[layer] == "sliding_attention" if kinds else layer % 2 == 0:
        masked |= query - key >= config["sliding_window"]
    assert (np.isneginf(scores) == masked[:, None]).all(), name
    return np.where(masked[:, None], 0, scores)


def check_prompt(program, folder, expect, p, out):
    ids = expect[f"{p}.ids"]
    table = run(program, "trace", "-q", "-m", folder, "--tokens", ids_of(ids), "--sites", "all", "-o", out)
    config = json.loads((folder / "config.json").read_text())
    worst, where = 0, None
    with safe_open(out, "np") as f:
        meta = f.metadata()
        assert meta["ids"] == ids_of(ids) and meta["edited_from"] == "-1" and meta["arithmetic"] == "exact"
        names = set(f.keys())
        assert names == {line.split("\t")[0] for line in table.splitlines()[1:]}
        for name, want in expect.items():
            short = name.removeprefix(p + ".")
            if short == name or short not in names:
                continue
            names.discard(short)
            got = f.get_tensor(short)
            if short.endswith("scores"):
                got = unmask(got, short, config)
            error = worst_row(got, want)
            assert error <= TOL, (folder.name, name, error)
            worst, where = max((worst, where), (error, name))
    assert not names or folder.name not in COMPLETE, f"not in the golden file: {names}"
    return worst, where


def check_generated(program, folder, expect, g, out):
    prompt, want, logits = (expect[f"{g}.{x}"] for x in ("prompt", "ids", "logits"))
    said = json.loads(run(program, "generate", "-q", "-m", folder, "--tokens", ids_of(prompt), "-n", len(want),
                          "--ignore-eos", "--json", "--logprobs", 3))
    assert [t["id"] for t in said["tokens"]] == [int(i) for i in want], (folder.name, g)
    logp = logits.astype(np.float64)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    for i, t in enumerate(said["tokens"]):
        assert abs(t["logprob"] - logp[i, t["id"]]) < 1e-3 and len(t["top"]) == 3
        assert t["top"][0] == {"id": t["id"], "piece": t["piece"], "logprob": t["logprob"]}
    n = len(prompt) + len(want)
    run(program, "trace", "-q", "-m", folder, "--tokens", ids_of(prompt), "--generate", len(want), "--sites", "logits", "-o", out)
    with safe_open(out, "np") as f:
        got = f.get_tensor("logits")
        assert got.shape[0] == n and f.metadata()["ids"] == ids_of(list(prompt) + list(want))
        assert worst_row(got[len(prompt) - 1:n - 1], logits) <= TOL
    npy = out.with_suffix(".npy")
    run(program, "trace", "-q", "-m", folder, "--tokens", ids_of(prompt), "--generate", len(want), "--sites", "logits", "-o", npy)
    assert (np.load(npy) == got).all()


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.safetensors"
        for folder in sorted(MODELS.iterdir()):
            if not (folder / "expect.safetensors").exists() or not any(folder.glob("model*.safetensors")):
                continue
            with safe_open(folder / "expect.safetensors", "np") as f:
                expect = {k: f.get_tensor(k) for k in f.keys()}
            prompts = sorted(k[:-4] for k in expect if k.endswith(".ids") and k[0] == "p")
            for p in prompts:
                worst, where = check_prompt(program, folder, expect, p, out)
                print(f"{folder.name}\t{p}\t{worst:.1e}\t{where}")
            for g in sorted(k[:-7] for k in expect if k.startswith("gen") and k.endswith(".prompt")):
                check_generated(program, folder, expect, g, out)


if __name__ == "__main__":
    main()
