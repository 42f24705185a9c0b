#!/usr/bin/env python3
"""A store made by `lapidary extract` and `lapidary index`, looked at with h5py, numpy and sqlite3 alone: every figure of every
feature, its strongest places, conditions, partners, words.

    oracle_store.py LAPIDARY DATA
"""

import json
import math
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import h5py
    import numpy as np
    from scipy.sparse import csr_matrix, vstack
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

LAPIDARY, DATA = sys.argv[1], Path(sys.argv[2])
SAES = ["3-lapidary-res-2k", "5-lapidary-res-2k"]
failed = passed = 0


def check(what, ok):
    global failed, passed
    passed += bool(ok)
    failed += not ok
    if not ok and failed < 20:
        print("not true:", what, file=sys.stderr)


def run(*args):
    return subprocess.run([LAPIDARY, *map(str, args), "-q"], check=True, capture_output=True, text=True).stdout


def make(folder):
    corpus = Path(folder) / "corpus.jsonl"
    corpus.write_text("".join(open(DATA / "demo.jsonl", encoding="utf-8").readlines()[:20]), encoding="utf-8")
    store = Path(folder) / "store"
    run("extract", "-o", store, "--unchecked", "-S", SAES[0], "-S", SAES[1], "--context", 100, "--shard-tokens", 1500, corpus)
    run("index", store)
    return store


class Rows:
    """All shards as one matrix per SAE, rows in the order of the run."""

    def __init__(self, store):
        self.shards = [h5py.File(p) for p in sorted(store.glob("runs/*/shard-*.h5"))]
        groups = [["layers/3/resid_post/sae/", "layers/5/resid_post/sae/"][i] + name for i, name in enumerate(SAES)]
        parts = [[], []]
        self.sums = [[], []]
        for f in self.shards:
            for i, group in enumerate(groups):
                g = f[group]
                shape = tuple(g.attrs["shape"])
                parts[i].append(csr_matrix((g["data"][:].astype("f8"), g["indices"][:], g["indptr"][:]), shape=shape))
                self.sums[i].append((g["stats/sum"][:], g["stats/sumsq"][:]))
        self.matrix = [vstack(p).tocsc() for p in parts]
        self.id = np.concatenate([f["tokens/id"][:] for f in self.shards])
        self.counts = np.concatenate([f["tokens/excluded"][:] for f in self.shards]) == 0
        self.document = np.concatenate([f["documents/doc_id"][:][f["tokens/doc"][:]] for f in self.shards])
        self.shard = np.concatenate([np.full(len(f["tokens/id"]), i) for i, f in enumerate(self.shards)])
        self.bases = [int(f.attrs["token_base"]) for f in self.shards]

    def feature(self, sae, index):
        """Dense column over the rows that count."""
        column = self.matrix[sae][:, [index]].toarray()[:, 0]
        return np.where(self.counts, column, 0)


def hist_of(values):
    bins = np.clip(np.floor(4 * np.log2(values)) + 16, 0, 63).astype(int)
    return np.bincount(bins, minlength=64)


def leb128(blob):
    out, value, shift = [], 0, 0
    for byte in blob:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            out.append(value)
            value = shift = 0
    return out


def top_of(rows, column):
    where = np.flatnonzero(column)
    order = sorted(where, key=lambda t: (-column[t], t))
    seen, out = {}, []
    for t in order:
        d = rows.document[t]
        if seen.get(d, 0) < 2 and len(out) < 32:
            seen[d] = seen.get(d, 0) + 1
            out.append((int(t), int(d), float(column[t])))
    return out


def check_features(db, rows):
    cut = 0
    for sae in range(2):
        got = {
            r[0]: r[1:]
            for r in db.execute(
                "SELECT feature, n_active, n_docs, sum, sumsq, max, hist, top, rest FROM feature JOIN sae USING(sae_id) "
                "WHERE name = ?",
                (SAES[sae],),
            )
        }
        live = 0
        for index in range(rows.matrix[sae].shape[1]):
            column = rows.feature(sae, index)
            if not column.any():
                check(("silent", sae, index), index not in got)
                continue
            live += 1
            n_active, n_docs, total, squares, most, hist, top, rest = got[index]
            values = column[column > 0]
            fires = column > 0
            check(("n_active", sae, index), n_active == len(values))
            check(("n_docs", sae, index), n_docs == len(set(zip(rows.shard[fires], rows.document[fires]))))
            # The exact sum of the shards' sums, rounded once: to the last bit; and near the sum of all values.
            check(("sum", sae, index), total == math.fsum(s[0][index] for s in rows.sums[sae]))
            check(("sumsq", sae, index), squares == math.fsum(s[1][index] for s in rows.sums[sae]))
            check(("sum of values", sae, index), math.isclose(total, values.sum(), rel_tol=1e-12))
            check(("sum of squares", sae, index), math.isclose(squares, (values * values).sum(), rel_tol=1e-12))
            check(("max", sae, index), most == values.max())
            check(("hist", sae, index), leb128(hist) == hist_of(values).tolist())
            cut += rest is not None
            places = [struct.unpack("<qqf", top[i : i + 20]) for i in range(0, len(top), 20)]
            check(("top", sae, index), places == top_of(rows, column))
        check(("live", sae), live == len(got) and live > 1000)
    check("some sums do not fit a double", cut > 100)


def spread(mask, rows, low, high):
    """True where mask is, at an offset of low .. high in the same document."""
    out = np.zeros_like(mask)
    n = len(mask)
    for by in range(low, high + 1):
        a, b = max(0, -by), min(n, n - by)
        here = slice(a, b)
        there = slice(a + by, b + by)
        out[here] |= mask[there] & (rows.document[here] == rows.document[there])
    return out & rows.counts


def check_where(store, rows):
    many = [np.argsort([-(rows.feature(s, i) > 0).sum() for i in range(200)])[:4] for s in range(2)]
    a, b, c = (int(many[0][0]), int(many[0][1]), int(many[1][2]))
    A, B, C = rows.feature(0, a), rows.feature(0, b), rows.feature(1, c)
    na, nb, nc = f"{SAES[0]}:{a}", f"{SAES[0]}:{b}", f"{SAES[1]}:{c}"
    the = int(np.bincount(rows.id[rows.counts]).argmax())
    token = (rows.id == the) & rows.counts
    cases = {
        f"{na}": A > 0,
        f"{na} > 3 and {nb} within 10, not {nc}": (A > 3) & spread(B > 0, rows, -10, 10) & ~(C > 0),
        f"{na} <= 2.5 or {nc} >= 4": ((A > 0) & (A <= 2.5)) | (C >= 4),
        f"not ({na} or {nb} or {nc})": ~((A > 0) | (B > 0) | (C > 0)) & rows.counts,
        f"token {the} before 3 and {nc} after 2": spread(token, rows, -3, -1) & spread(C > 0, rows, 1, 2),
        f"({na} within 5 and {nb} > 2) within 40": spread(spread(A > 0, rows, -5, 5) & (B > 2), rows, -40, 40),
        f"not ({nc} within 700)": ~spread(C > 0, rows, -700, 700) & rows.counts,
    }
    for text, mask in cases.items():
        got = [x["token"] for x in json.loads(run("query", store, "where", text, "-k", 0, "--json"))]
        check(text, got == np.flatnonzero(mask).tolist())
    check("the cases hold somewhere", sum(0 < m.sum() < len(m) for m in cases.values()) >= 6)
    return a, A


def check_partners(store, rows, a, A):
    got = json.loads(run("query", store, "partners", SAES[0], a, "--with", SAES[1], "--sample", 1000000, "-k", 0, "--json"))
    fires, n = A > 0, rows.counts.sum()
    B = rows.matrix[1].tocsr()[np.flatnonzero(fires)]
    together = np.asarray((B > 0).sum(axis=0)).ravel()
    active = np.asarray((rows.matrix[1].tocsr()[np.flatnonzero(rows.counts)] > 0).sum(axis=0)).ravel()
    check("partners", {x["index"]: x["together"] for x in got} == {int(i): int(together[i]) for i in np.flatnonzero(together)})
    for x in got:
        t, r, k = int(together[x["index"]]), int(fires.sum()), int(active[x["index"]])
        check(("pmi", x), math.isclose(x["pmi"], math.log2(t * n / (r * k)), rel_tol=1e-4, abs_tol=1e-4))
        check(("jaccard", x), math.isclose(x["jaccard"], t / (r + k - t), rel_tol=1e-4))


def check_words(store):
    lines = [json.loads(x)["text"] for x in open(DATA / "demo.jsonl", encoding="utf-8").readlines()[:20]]
    for word in ["whale", "the", "ship", "nowhere"]:
        got = {x["document"] for x in json.loads(run("query", store, "text", word, "-k", 0, "--json"))}
        want = {i for i, text in enumerate(lines) if re.search(rf"(?<![^\W_]){word}(?![^\W_])", text, re.I)}
        check(("word", word, got ^ want), got == want)


def main():
    with tempfile.TemporaryDirectory() as folder:
        store = make(folder)
        rows = Rows(store)
        db = sqlite3.connect(f"file:{store}/catalog.sqlite?mode=ro", uri=True)
        check("more shards than one", len(rows.shards) > 4)
        check_features(db, rows)
        a, A = check_where(store, rows)
        check_partners(store, rows, a, A)
        check_words(store)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0 or passed < 10000)


main()
