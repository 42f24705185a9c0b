"""A store, opened with h5py and scipy, against what `lapidary features` says of the same tokens, and against transformers.

    python check_extract.py LAPIDARY DATA

Every window of a small extraction: features bit for bit; log-probabilities and the dense stream from transformers' own
float32 run (1e-4 and 2e-5 of a row's length); the reconstruction error from the SAE's own arrays in float64.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

try:
    import h5py
    import scipy.sparse as sp
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

lapidary, data = sys.argv[1], Path(sys.argv[2])
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("WRONG:", what)


def run(*words):
    return subprocess.run([lapidary, *map(str, words), "-q"], check=True, capture_output=True).stdout


def matrix(group):
    return sp.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=group.attrs["shape"])


def features(ids, saes):
    words = [w for s in saes for w in ("-S", s)]
    said = json.loads(run("features", "--json", "--bos", "--top", 0, "--tokens", ",".join(map(str, ids)), *words))
    out = {}
    for f in said["features"]:
        out.setdefault(f["sae"], {})[f["pos"], f["index"]] = np.float32(f["activation"])
    return out


def main():
    saes = {"3-lapidary-res-2k": "layers/3/resid_post", "3-lapidary-att-2k": "layers/3/z"}
    model = AutoModelForCausalLM.from_pretrained(data / "base", dtype=torch.float32, attn_implementation="eager").eval()
    params = np.load(next((data / "saes/res/layer_3").rglob("params.npz")))
    with tempfile.TemporaryDirectory() as tmp:
        corpus = Path(tmp) / "c.jsonl"
        corpus.write_text("".join((data / "demo.jsonl").read_text().splitlines(True)[::9]) + '{"text": "Ave, 3 caf\\u00e9s."}\n')
        words = [w for s in saes for w in ("-S", s)]
        run("extract", corpus, "--store", f"{tmp}/s", *words, "--dense", "resid_post.3", "--logprob", "--shard-tokens", 3000)
        run("extract", corpus, "--store", f"{tmp}/t", *words, "--dense", "resid_post.3", "--shard-tokens", 1000, "--wave", 64)
        shards = [h5py.File(p) for p in sorted(Path(tmp).glob("s/runs/*/shard-*.h5"))]
        others = [h5py.File(p) for p in sorted(Path(tmp).glob("t/runs/*/shard-*.h5"))]
        check(len(shards) > 1 and len(others) > len(shards), "several shards")
        ids = np.concatenate([f["tokens/id"][:] for f in shards])
        pos = np.concatenate([f["tokens/pos"][:] for f in shards])
        logprob = np.concatenate([f["tokens/logprob"][:] for f in shards])
        dense = np.concatenate([f["layers/3/resid_post/dense/values"][:] for f in shards])
        csr = {s: sp.vstack([matrix(f[f"{at}/sae/{s}"]) for f in shards]).tocsr() for s, at in saes.items()}
        for s, at in saes.items():
            again = sp.vstack([matrix(f[f"{at}/sae/{s}"]) for f in others]).tocsr()
            check((csr[s] != again).nnz == 0 and csr[s].nnz > 1000, f"{s}: shards of another size, unbatched or not")
            for f in shards:
                g = f[f"{at}/sae/{s}/by_feature"]
                csc = sp.csc_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=g.attrs["shape"])
                check((csc.tocsr() != matrix(f[f"{at}/sae/{s}"])).nnz == 0, f"{s}: by_feature is another matrix")
        starts = np.flatnonzero(pos == 0)
        ends = np.append(starts[1:], len(ids))
        worst_p = worst_x = 0.0
        for a, b in zip(starts, ends):
            window = ids[a:b]
            said = features(window, saes)
            for s in saes:
                rows = csr[s][a:b].tocoo()
                got = {(int(r), int(c)): v for r, c, v in zip(rows.row, rows.col, rows.data)}
                check(got == said.get(s, {}), f"{s}, window at {a}: not what features says")
            with torch.no_grad():
                o = model(torch.tensor(window[None].astype(np.int64)), output_hidden_states=True)
            p = torch.log_softmax(o.logits[0].double(), -1)
            if b - a > 1:
                want = p[range(b - a - 1), torch.tensor(window[1:].astype(np.int64))].numpy()
                worst_p = max(worst_p, np.abs(want - logprob[a:b - 1]).max())
            check(np.isnan(logprob[b - 1]), "nothing follows the last token")
            x = o.hidden_states[4][0].numpy()
            worst_x = max(worst_x, (np.linalg.norm(dense[a:b] - x, axis=1) / np.linalg.norm(x, axis=1)).max())
        check(worst_p < 1e-4, f"log-probabilities {worst_p:.1e} apart")
        check(worst_x < 2e-5, f"the stream {worst_x:.1e} apart")
        made = csr["3-lapidary-res-2k"].astype(np.float64) @ params["W_dec"].astype(np.float64) + params["b_dec"]
        error = ((dense.astype(np.float64) - made) ** 2).sum(1)
        stored = np.concatenate([f["layers/3/resid_post/sae/3-lapidary-res-2k/recon/sqerr"][:] for f in shards])
        check(np.allclose(stored, error, rtol=1e-4), "the error of the reconstruction")
        texts = json.loads(f"[{','.join(corpus.read_text().splitlines())}]")
        docs, t = [], shards
        for f in t:
            ptr, doc = f["documents/text_ptr"][:], f["documents/doc_id"][:]
            raw = f["documents/text"][:].tobytes()
            for i, d in enumerate(doc):
                if d == len(docs):
                    docs.append(b"")
                docs[d] += raw[ptr[i]:ptr[i + 1]]
        check([d.decode() for d in docs] == [x["text"] for x in texts], "the texts of the documents")
    print(f"{len(starts)} windows; log-probabilities within {worst_p:.1e}, the stream within {worst_x:.1e}")
    print(f"{len(failures)} failures")
    sys.exit(bool(failures))


main()
