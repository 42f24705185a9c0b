"""`lapidary sae nearest` and `lapidary sae effects` against numpy in float64, on the shipped SAEs and base model.

    python check_dense.py PATH_OF_lapidary PATH_OF_data

numpy reads the params.npz, safetensors the model; the whole matrix of all pairs is made here, and every figure the program
prints is looked up in it, none larger may have been left out, and equals stand in the order of ids.

Tolerance: an f32 sum of d products is off by less than d 2^-24 of the product of the rows' lengths, and figures are printed
with 5 digits.
"""
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

from check_embedded import run

TOP = 7


def check_lists(rows, figures, key, value, tol):
    """rows of the table: (index, id, figure) in the order of ranks; figures [n][m] float64, -inf where not to be kept."""
    lists = {}
    for r in rows:
        assert r["rank"] == len(lists.setdefault(r["index"], [])) + 1
        lists[r["index"]].append((r[key], r[value]))
    for i, got in lists.items():
        ids = [g for g, _ in got]
        assert len(set(ids)) == len(ids) == TOP
        want = figures[i][ids]
        slack = tol[i] + 1e-5 * np.abs(want)
        assert (np.abs([v for _, v in got] - want) <= slack).all(), (i, got, want)
        assert (np.diff(want) <= 2 * tol[i]).all(), i
        left = np.delete(figures[i], ids).max()
        assert left <= want.min() + 2 * tol[i], (i, left, want)
    return len(lists)


def decoder(path):
    return np.load(path / "params.npz")["W_dec"].astype(np.float64)


def check_nearest(program, a, b):
    x, y = decoder(a), decoder(b)
    cosines = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
    if a == b:
        np.fill_diagonal(cosines, -np.inf)
    names = [a] if a == b else [a, b]
    rows = json.loads(run(program, "sae", "nearest", *names, "--top", TOP, "--json"))
    n = check_lists(rows, cosines, "near", "cosine", np.full(len(x), x.shape[1] * 2.0**-24))
    assert n == len(x)
    print(f"nearest {a.parts[-4]}/{a.parts[-3]} in {b.parts[-4]}/{b.parts[-3]}: {len(rows)} neighbours of {n} features")


def check_effects(program, path, weights, gained):
    layer = int(path.parts[-3].split("_")[1])
    v, table = decoder(path), weights["model.embed_tokens.weight"]
    if path.parts[-4] == "att":
        v = v @ weights[f"model.layers.{layer}.self_attn.o_proj.weight"].T
    if gained:
        v = v * (1 + weights["model.norm.weight"])
    effects = v @ table.T
    tol = v.shape[1] * 2.0**-24 * np.linalg.norm(v, axis=1) * np.linalg.norm(table, axis=1).max()
    rows = json.loads(run(program, "sae", "effects", path, "--top", TOP, "--json", *(["--gained"] if gained else [])))
    assert check_lists(rows, effects, "id", "effect", tol) == len(v)
    down = [dict(r, suppressed_effect=-r["suppressed_effect"]) for r in rows]
    assert check_lists(down, -effects, "suppressed_id", "suppressed_effect", tol) == len(v)
    print(f"effects {path.parts[-4]}/{path.parts[-3]}{' gained' if gained else ''}: {2 * len(rows)} of {effects.size} effects")


def main():
    program, data = sys.argv[1], pathlib.Path(sys.argv[2])
    weights = {k: t.to(torch.float64).numpy() for k, t in load_file(data / "base" / "model.safetensors").items()}
    res, later, coder, att = (next((data / "saes" / kind / f"layer_{layer}").glob("width_*/average_l0_*"))
                              for kind, layer in (("res", 3), ("res", 5), ("transcoder", 3), ("att", 3)))
    check_nearest(program, res, res)
    check_nearest(program, res, later)
    check_nearest(program, coder, res)
    check_nearest(program, att, att)
    for path in (res, coder, att):
        for gained in (False, True):
            check_effects(program, path, weights, gained)


main()
