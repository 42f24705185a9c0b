"""Exports read by others, and other programs' activations held against a run, through the program as a user runs it.

    python oracle_outside.py PATH_OF_lapidary PATH_OF_data

delphi's own loader (LatentDataset, TensorBuffer) reads the cache, and a restatement of it in numpy, so that the test
stands where delphi is not installed; both must give the shards' CSR as h5py and scipy read it, rounded to f16.  The CSV is
read by Python's csv.  Then transformers computes the tensors and SAELens encodes them: `export check` must find that they
agree, and find one value, one feature, one token that was changed.
"""
import csv
import gzip
import importlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import types

import h5py
import numpy as np
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent / "goldens"))
from check_embedded import read_model, read_sae, sites  # noqa: E402

CORPUS = """The whale swam in the sea, and the sailors saw it from the ship. It was a large whale.
Once upon a time there was a little girl who lived by the river, and her father was an old captain.
Norway is a country of northern Europe.
"""
SAE, LAYER = "3-lapidary-res-2k", 3


def run(program, *words, status=0, **env):
    done = subprocess.run([program, *map(str, words), "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, **env})
    assert done.returncode == status, (words, done.returncode, done.stderr)
    return done.stdout


def read_shards(folder):
    """Ids, positions, documents and the CSR matrix of all shards, by h5py and scipy."""
    ids, pos, doc, rows = [], [], [], []
    for path in sorted(folder.glob("shard-*.h5")):
        with h5py.File(path) as f:
            g = f[f"layers/{LAYER}/resid_post/sae/{SAE}"]
            rows.append(sp.csr_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=g.attrs["shape"]))
            ids += f["tokens/id"][:].tolist()
            pos += f["tokens/pos"][:].tolist()
            doc += f["documents/doc_id"][:][f["tokens/doc"][:]].tolist()
    return np.array(ids), np.array(pos), np.array(doc), sp.vstack(rows).tocsr()


def check_anndata(folder):
    from anndata.io import read_elem
    with h5py.File(next(folder.glob("shard-*.h5"))) as f:
        g = f[f"layers/{LAYER}/resid_post/sae/{SAE}"]
        rows, columns = read_elem(g), read_elem(g["by_feature"])
    assert sp.issparse(rows) and rows.nnz and (rows != columns).nnz == 0
    print(f"anndata reads a shard as it is: {rows.shape}, {rows.nnz} values")


def check_csv(program, store, scratch, ids, pos, doc, matrix):
    want = [(int(doc[r]), int(pos[r]), int(ids[r]), int(c), float(v))
            for r in range(matrix.shape[0]) for c, v in zip(matrix[r].indices, matrix[r].data)]
    for name, tab in (("a.csv", ","), ("a.tsv.gz", "\t")):
        run(program, "export", store, "-S", SAE, "--as", "csv", "-o", scratch / name)
        with (gzip.open if name.endswith("gz") else open)(scratch / name, "rt") as f:
            head, *rows = csv.reader(f, delimiter=tab)
        assert head == ["document", "pos", "token", "feature", "value"]
        got = [(*map(int, r[:4]), float(np.float32(r[4]))) for r in rows]
        assert got == want, name
    print(f"csv: {len(want)} activations, every bit of them")


def windows_of(pos):
    """Window and place of each row."""
    starts = np.flatnonzero(np.r_[True, pos[1:] != pos[:-1] + 1])
    window = np.searchsorted(starts, np.arange(len(pos)), side="right") - 1
    return window, np.arange(len(pos)) - starts[window]


def as_delphi(folder):
    """What delphi/latents/loader.py TensorBuffer.load makes of each split: location, activation, tokens."""
    at, values, tokens = [], [], None
    for path in sorted(folder.glob("*.safetensors"), key=lambda p: int(p.stem.split("_")[0])):
        split = load_file(path)
        assert split["locations"].dtype in (np.uint16, np.uint32) and split["activations"].dtype == np.float16
        where = split["locations"].astype(np.int64)
        where[:, 2] += int(path.stem.split("_")[0])
        at.append(where)
        values.append(split["activations"])
        assert split["tokens"].dtype == np.int64 and (tokens is None or (tokens == split["tokens"]).all())
        tokens = split["tokens"]
    return np.concatenate(at), np.concatenate(values), tokens


def import_delphi():
    """Its loader, with stand-ins for what it imports and never calls here (faiss, ...).  None: not installed."""
    for _ in range(30):
        try:
            return importlib.import_module("delphi.latents.loader")
        except ModuleNotFoundError as e:
            if e.name == "delphi":
                return None
            m = types.ModuleType(e.name)
            m.__getattr__ = lambda _n: type("nothing", (), {"__init__": lambda self, *a, **k: None})
            m.__path__ = []
            sys.modules[e.name] = m
            for name in [n for n in sys.modules if n == "delphi" or n.startswith("delphi.")]:
                del sys.modules[name]
    return None


def check_delphi(program, store, scratch, ids, pos, matrix, splits):
    out = scratch / f"delphi{splits}"
    run(program, "export", store, "-S", SAE, "--as", "delphi", "--splits", splits, "-o", out)
    window, place = windows_of(pos)
    coo = matrix.tocoo()
    order = np.lexsort((coo.col, coo.row))
    want_at = np.stack([window[coo.row], place[coo.row], coo.col], 1)[order]
    want = coo.data[order].astype(np.float16)
    want_tokens = np.zeros((window.max() + 1, place.max() + 1), np.int64)
    want_tokens[window, place] = ids

    at, values, tokens = as_delphi(out / f"layers.{LAYER}")
    order = np.lexsort((at[:, 2], at[:, 1], at[:, 0]))
    assert (at[order] == want_at).all() and (values[order] == want).all() and (tokens == want_tokens).all()
    config = json.load(open(out / f"layers.{LAYER}" / "config.json"))
    assert config["cache_ctx_len"] == tokens.shape[1] and config["n_splits"] == splits

    loader = import_delphi()
    if loader is None:
        print("delphi is not installed: read by a restatement of its loader alone")
        return out
    from delphi.config import ConstructorConfig, SamplerConfig
    data = loader.LatentDataset(out, SamplerConfig(), ConstructorConfig(), tokenizer=object())
    assert len(data) == splits and (data.tokens.numpy() == want_tokens).all()
    got = {}
    for buffer in data.buffers:
        latents, where, acts = buffer.load_data_per_latent()
        for latent, w, a in zip(latents.tolist(), where, acts):
            got[latent] = (w.numpy()[:, :2], a.numpy())
    assert set(got) == set(want_at[:, 2].tolist())
    for latent, (w, a) in got.items():
        mine = want_at[:, 2] == latent
        assert (w == want_at[mine, :2]).all() and (a == want[mine]).all(), latent
    feature = sorted(got)[len(got) // 2]
    picked = loader.LatentDataset(out, SamplerConfig(), ConstructorConfig(), tokenizer=object(),
                                  latents={f"layers.{LAYER}": torch.tensor([feature])})
    (latents, where, _), = [b.load_data_per_latent() for b in picked.buffers]
    assert latents.tolist() == [feature] and len(where[0]) == len(got[feature][0])
    print(f"delphi's loader reads {len(got)} features in {splits} splits, {len(want)} activations")
    return out


def outside_activations(data, ids, pos):
    """transformers and SAELens, window by window: [rows][d_sae]."""
    model = read_model(data / "base")
    path = next((data / "saes/res").glob(f"layer_{LAYER}/width_2k/*/params.npz"))
    window, _ = windows_of(pos)
    rows = []
    for w in range(window.max() + 1):
        x = sites(model, ids[window == w].tolist())["res", LAYER]
        sae = read_sae(path, np.load(path)["b_enc"].size, x.shape[1])
        with torch.no_grad():
            rows.append(sae.encode(x).numpy())
    return np.concatenate(rows)


def report(program, store, file, agrees):
    j = json.loads(run(program, "export", "check", store, "-S", SAE, "--against", file, "--json", status=0 if agrees else 1))
    assert j["agrees"] == agrees, j
    return j


def check_check(program, data, store, scratch, ids, pos, matrix, cache):
    acts = outside_activations(data, ids, pos)
    csr = sp.csr_matrix(acts)
    files = {
        "dense.npz": lambda p, i, a: np.savez(p, tokens=i, activations=a),
        "small.npz": lambda p, i, a: np.savez_compressed(p, token_ids=i.astype(np.int32), feature_acts=a.astype(np.float64)),
        "csr.npz": lambda p, i, a: np.savez(p, tokens=i, **{k: getattr(sp.csr_matrix(a), k)
                                                             for k in ("indptr", "indices", "data")}),
        "dense.safetensors": lambda p, i, a: save_file({"tokens": i, "acts": a}, p),
        "half.safetensors": lambda p, i, a: save_file({"tokens": i.astype(np.uint32), "acts": a.astype(np.float16)}, p),
    }
    for name, write in files.items():
        path = scratch / name
        write(path, ids, acts)
        j = report(program, store, path, True)
        assert j["rows"] == len(ids) and j["values"] == csr.nnz and j["largest"] < (1e-3 if "half" in name else 1e-4), j
        if name == "dense.npz":
            print(f"SAELens: {j['values']} values in {j['rows']} rows agree, the largest {j['largest']:.1e} of its row apart")

        r = len(ids) // 2
        top = int(acts[r].argmax())
        off = acts.copy()
        off[r, top] *= 1.01
        write(path, ids, off)
        j = report(program, store, path, False)
        k, = j["worst"]
        assert (j["beyond_tolerance"], j["here_only"], j["there_only"], j["rows_differ"]) == (1, 0, 0, 1), j
        assert (k["differs"], k["feature"], k["pos"], k["token"]) == ("value", top, pos[r], ids[r]), k
        assert abs(k["there"] / k["here"] - 1.01) < 1e-3

        off = acts.copy()
        new = int(np.flatnonzero(acts[r] == 0)[0])
        off[r, top], off[r, new] = 0, acts[r, top]
        write(path, ids, off)
        j = report(program, store, path, False)
        assert (j["here_only"], j["there_only"], j["beyond_tolerance"]) == (1, 1, 0), j
        assert {(k["differs"], k["feature"]) for k in j["worst"]} == {("here only", top), ("there only", new)}

        other = ids.copy()
        other[r] += 1
        write(path, other, acts)
        j = report(program, store, path, False)
        k, = j["worst"]
        assert j["tokens_differ"] == 1 and (k["token"], k["their_token"]) == (ids[r], ids[r] + 1)

    report(program, store, cache, True)
    split = next((cache / f"layers.{LAYER}").glob("0_*.safetensors"))
    arrays = load_file(split)
    arrays["activations"][len(arrays["activations"]) // 2] += np.float16(2)
    save_file(arrays, split)
    j = report(program, store, cache, False)
    assert j["beyond_tolerance"] == 1, j

    # What no file of activations is, each refused in one line.
    n, d = acts.shape
    bad = {
        "rows": dict(tokens=ids[:-1], activations=acts[:-1]), "width": dict(tokens=ids, activations=acts[:, :-1]),
        "nan": dict(tokens=ids, activations=np.where(np.arange(d) == 5, np.nan, acts).astype(np.float32)),
        "no tokens": dict(activations=acts), "nothing": dict(tokens=ids), "floats": dict(tokens=acts[:, 0], activations=acts),
        "fortran": dict(tokens=ids, activations=np.asfortranarray(acts)),
        "order": dict(tokens=ids, indptr=np.r_[0, np.full(n, 2)], indices=np.array([7, 3]), data=np.ones(2, np.float32)),
        "outside": dict(tokens=ids, indptr=np.r_[0, np.full(n, 1)], indices=np.array([d]), data=np.ones(1, np.float32)),
        "falls": dict(tokens=ids, indptr=np.r_[0, 2, np.full(n - 1, 1)], indices=np.array([1, 2]), data=np.ones(2, np.float32)),
        "short": dict(tokens=ids, indptr=np.r_[0, np.full(n, 9)], indices=np.array([1, 2]), data=np.ones(2, np.float32)),
    }
    for name, arrays in bad.items():
        np.savez(scratch / "bad.npz", **arrays)
        done = subprocess.run([program, "export", "check", store, "-S", SAE, "--against", scratch / "bad.npz", "-q"],
                              capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "bad.npz" in done.stderr, (name, done)
    print(f"check: {len(files)} containers and delphi's, each with a value, a feature and a token changed; {len(bad)} refused")


def check_labels(program, scratch):
    home = {"XDG_DATA_HOME": str(scratch / "data")}
    run(program, "label", "set", SAE, 473, "whales \u2581 \"quoted\"", "--author", "ada", "--score", "0.1", **home)
    db = sqlite3.connect(scratch / "data/lapidary/annotations.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    row, = db.execute("SELECT feature, text, author, method, score FROM label").fetchall()
    assert row == (473, "whales \u2581 \"quoted\"", "ada", "person", 0.1)
    assert db.execute("SELECT count(*) FROM label_fts WHERE label_fts MATCH 'whale'").fetchone() == (1,)
    print("sqlite3 reads the labels")


def main():
    program, data = sys.argv[1], pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        (scratch / "corpus.txt").write_text(CORPUS)
        store = scratch / "store"
        run(program, "extract", scratch / "corpus.txt", "--store", store, "--split", "lines", "--context", 16,
            "--shard-tokens", 32, "-S", SAE, XDG_CACHE_HOME=str(scratch / "cache"))
        folder, = (store / "runs").iterdir()
        assert len(list(folder.glob("shard-*.h5"))) > 1
        ids, pos, doc, matrix = read_shards(folder)
        check_anndata(folder)
        check_csv(program, store, scratch, ids, pos, doc, matrix)
        for splits in (1, 5, 700):  # of 700 many are empty
            cache = check_delphi(program, store, scratch, ids, pos, matrix, splits)
        cache = scratch / "delphi5"
        check_check(program, data, store, scratch, ids, pos, matrix, cache)
        check_labels(program, scratch)


main()
