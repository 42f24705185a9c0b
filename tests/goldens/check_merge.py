#!/usr/bin/env python3
"""A run as one file (`lapidary merge`), against its shards laid end to end by numpy and scipy.

    check_merge.py LAPIDARY DATA

h5py, scipy and anndata open run.h5; every set must be the shards' own, bit for bit, counted from the start of the run,
also after the folder has moved; a lost shard must not look like data.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    import anndata
    import h5py
    import numpy as np
    import scipy.sparse as sp
except ImportError as e:
    print(f"{e}: see tests/oracle-extra-requirements.txt")
    sys.exit(77)

failures = checks = 0


def check(ok, what):
    global failures, checks
    checks += 1
    if not ok:
        failures += 1
        print("NOT SO:", what)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def matrix(g):
    return sp.csr_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=g.attrs["shape"])


def check_run(run):
    """run.h5 against the shards; returns how many there are."""
    shards = [h5py.File(p, "r") for p in sorted(run.glob("shard-*.h5"))]
    with h5py.File(run / "run.h5", "r") as f:
        def laid(path):
            return np.concatenate([s[path][:] for s in shards])

        check(f.attrs["lapidary_format"] == "run" and f.attrs["n_shards"] == len(shards), "attributes")
        check(f.attrs["n_tokens"] == sum(s.attrs["n_tokens"] for s in shards), "n_tokens")
        lines = f["contents/shards"].asstr()[:]
        check("".join(x + "\n" for x in lines) == "".join(p.read_text() for p in sorted(run.glob("*.xxh3"))), "shards")
        virtual = ["tokens/id", "tokens/pos", "tokens/excluded", "tokens/logprob", "documents/doc_id", "documents/hash",
                   "documents/first_token", "documents/is_utf8", "documents/text", "documents/key"]
        for path in f["contents/dense"].asstr()[:]:
            virtual.append(path + "/values")
            check(dict(f[virtual[-1]].attrs) == dict(shards[0][virtual[-1]].attrs), path)
        for path in f["contents/sae"].asstr()[:]:
            g = f[path]
            virtual += [f"{path}/{x}" for x in ("indices", "data", "recon/sqerr", "recon/norm2")]
            want = sp.vstack([matrix(s[path]) for s in shards], format="csr")
            for got in (matrix(g), anndata.io.read_elem(g)):
                got.check_format(full_check=True)
                check(got.shape == want.shape and same(got.data, want.data) and
                      np.array_equal(got.indices, want.indices) and np.array_equal(got.indptr, want.indptr), path)
            lazy = anndata.io.sparse_dataset(g)
            check((lazy[5:2500] != want[5:2500]).nnz == 0, path + ", some rows")
            check(g["indptr"].dtype == np.int64 and not g["indptr"].is_virtual, "indptr")
            check(g.attrs["nnz"] == want.nnz and g.attrs["hash"] == shards[0][path].attrs["hash"], "attributes of " + path)
        for path in virtual:
            check(f[path].is_virtual and same(f[path][:], laid(path)), path)
            names = {s.file_name for s in f[path].virtual_sources()}
            check(all("/" not in n for n in names), path + ": sources beside it")
        document = np.concatenate([s["tokens/doc"][:] for s in shards])
        base = np.repeat(np.cumsum([0] + [s.attrs["n_documents"] for s in shards[:-1]]), [len(s["tokens/doc"]) for s in shards])
        check(np.array_equal(f["tokens/doc"][:], document + base), "tokens/doc")
        for what in ("text", "key"):
            whole, cut = f["documents/" + what][:].tobytes(), f[f"documents/{what}_ptr"][:]
            got = [whole[a:b] for a, b in zip(cut, cut[1:])]
            want = []
            for s in shards:
                part, c = s["documents/" + what][:].tobytes(), s[f"documents/{what}_ptr"][:]
                want += [part[a:b] for a, b in zip(c, c[1:])]
            check(got == want, what)
        check(np.array_equal(np.diff(f["documents/token_ptr"][:]),
                             np.bincount(f["tokens/doc"][:], minlength=f.attrs["n_documents"])), "token_ptr")
    for s in shards:
        s.close()
    return len(shards)


def main():
    lapidary, data = sys.argv[1], pathlib.Path(sys.argv[2])

    def run(*words):
        return subprocess.run([lapidary, *map(str, words), "-q"], capture_output=True, text=True)

    def merge(store, *words):
        r = run("merge", store, "--json", *words)
        return json.loads(r.stdout)[0] if r.returncode == 0 else r.stderr

    with tempfile.TemporaryDirectory() as t:
        t = pathlib.Path(t)
        (t / "c.jsonl").write_text("".join((data / "demo.jsonl").read_text().splitlines(True)[:8]) + '{"text": ""}\n' * 3)
        store = t / "s"
        job = ["extract", t / "c.jsonl", "--store", store, "-S", "3-lapidary-res-2k", "-S", "3-lapidary-transcoder-2k",
               "--dense", "resid_mid.2", "--dense-type", "bf16", "--logprob", "--shard-tokens", 900]
        run(*job, "--part", "0/2")
        check("shards are not there" in merge(store), "a run that is not finished")
        check(not list(store.glob("runs/*/*run.h5*")), "nothing is written then")
        check(run(*job).returncode == 0, "extract")
        first = merge(store)
        check(first["made"] and check_run(pathlib.Path(first["path"]).parent) >= 6, "merged")
        small = pathlib.Path(first["path"]).read_bytes()
        check(not merge(store)["made"], "made once")

        moved = t / "elsewhere"
        store.rename(moved)
        folder = next(moved.glob("runs/*"))
        check_run(folder)
        (folder / "run.h5").write_bytes(small[:5000])
        check(merge(moved, folder.name[:6])["made"] and (folder / "run.h5").read_bytes() == small, "a torn one")

        lost = folder / "shard-000002.h5"
        lost.rename(t / "kept")
        says = merge(moved)
        check("1 of" in says and "shard-000002.h5" in says and says.count("\n") == 1, says)
        with h5py.File(folder / "run.h5", "r") as f:
            g = f[f["contents/sae"].asstr()[0]]
            check(np.isnan(g["data"][:]).any() and (g["indices"][:] == -1).any() and (f["tokens/id"][:] == -1).any(),
                  "a lost shard shows")
        shutil.copy(t / "kept", lost)
        lost.chmod(0o644)
        with open(lost, "r+b") as f:
            f.seek(30000)
            f.write(b"!")
        (folder / "run.h5").unlink()
        says = merge(moved)
        check("damaged" in says and "shard-000002.h5" in says, says)
        shutil.copy(folder / "shard-000001.h5", lost)
        (folder / "shard-000002.h5.xxh3").write_text((folder / "shard-000001.h5.xxh3").read_text().replace("01.h5", "02.h5"))
        says = merge(moved)
        check("not shard 2 of this run" in says, says)
        check(not list(folder.glob("*run.h5*")) and not list(folder.glob(".run*")), "nothing is left behind")
        for words, says in (((moved, "zz"), "no run zz"), ((t,), "no run in this store")):
            check(says in merge(*words), says)
    print(f"{checks} checks, {failures} failed")
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()
