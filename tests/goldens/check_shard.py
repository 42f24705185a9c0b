#!/usr/bin/env python3
"""Shards as other people's software sees them: h5py, scipy and anndata read one as it stands.

    check_shard.py TEST_SHARD TEST_SHARD_DAMAGE

TEST_SHARD --make writes a shard and, beside it, raw, what was given to it.  Everything below is taken again from the
raw numbers with numpy and scipy: rows, the transpose, statistics, rounding, reconstruction.  Then copies are bent in
ways that leave them sound HDF5, and verifying must find each.
"""
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

N, D_OUT, WIDTH = 20000, 5, 12
failures = checks = 0


def check(ok, what):
    global failures, checks
    checks += 1
    if not ok:
        failures += 1
        print("NOT SO:", what)


def rounded(v, threshold, bits):
    """numpy's nearest-even at `bits` of mantissa, by arithmetic on the values; above the threshold."""
    m, e = np.frexp(v.astype(np.float64))
    step = np.ldexp(1.0, e - 1 - bits)
    out = np.rint(v / step) * step
    low = out <= threshold
    out[low] = (np.floor(v[low] / step[low]) + 1) * step[low]
    return out.astype(np.float32)


def raw(folder, name):
    return np.fromfile(folder / name, dtype="<" + name.rsplit(".", 1)[1])


def check_tokens(f, folder):
    for name in ("id.i4", "doc.i4", "pos.i4", "excluded.u1", "logprob.f4"):
        check(np.array_equal(f["tokens/" + name[:-3]][:], raw(folder, name)), name)
    ids, ptr, rows = raw(folder, "id.i4"), f["tokens/by_id/indptr"][:], f["tokens/by_id/rows"][:]
    check(np.array_equal(rows, np.argsort(ids, kind="stable")), "by_id rows")
    check(np.array_equal(np.diff(ptr), np.bincount(ids, minlength=500)), "by_id counts")
    doc, ptr = raw(folder, "doc.i4"), f["documents/token_ptr"][:]
    check(np.array_equal(np.diff(ptr), np.bincount(doc, minlength=60)), "token_ptr")
    text, cut = f["documents/text"][:].tobytes(), f["documents/text_ptr"][:]
    for i in range(60):
        want = (folder / f"text.{i}").read_bytes()
        check(text[cut[i]:cut[i + 1]] == want, f"text {i}")
        try:
            want.decode()
            is_utf8 = 1
        except UnicodeDecodeError:
            is_utf8 = 0
        check(f["documents/is_utf8"][i] == is_utf8, f"is_utf8 {i}")
    check(f["documents/doc_id"][3] == 1009, "doc_id")
    key, cut = f["documents/key"][:].tobytes(), f["documents/key_ptr"][:]
    check(key[cut[41]:cut[42]] == b"key-41", "key")


def check_sae(f, i, folder, bits):
    path = f["contents/sae"].asstr()[i]
    g = f[path]
    start, index, value = (raw(folder, f"{i}.{x}") for x in ("start.i8", "index.i4", "value.f4"))
    threshold = raw(folder, f"{i}.threshold.f4")
    if bits < 23:
        value = rounded(value, threshold[index], bits)
    width = len(threshold)
    want = sp.csr_matrix((value, index, start), shape=(N, width))
    csr = anndata.io.read_elem(g)
    csc = anndata.io.read_elem(g["by_feature"])
    check(sp.isspmatrix_csr(csr) or csr.format == "csr", "csr")
    check(csc.format == "csc", "csc")
    check(csr.shape == want.shape and csc.shape == want.shape, "shape")
    for a, b in ((csr, want), (csc, want.tocsc())):
        check(np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices), f"{path} places")
        check(np.array_equal(a.data, b.data), f"{path} values")
    check((csr != csc.tocsr()).nnz == 0, "csc equals csr")
    plain = sp.csr_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=tuple(g.attrs["shape"]))
    check((plain != want).nnz == 0, "by hand")

    excluded, doc = raw(folder, "excluded.u1"), raw(folder, "doc.i4")
    counted = want[excluded == 0].tocsc()
    s = g["stats"]
    n_active = np.diff(counted.indptr)
    check(np.array_equal(s["n_active"][:], n_active), "n_active")
    docs = doc[excluded == 0][counted.indices]
    columns = np.repeat(np.arange(width), n_active)
    check(np.array_equal(s["n_docs"][:], np.bincount(np.unique(columns * 60 + docs) // 60, minlength=width)), "n_docs")
    values = counted.data.astype(np.float64)
    check(np.array_equal(s["max"][:], counted.max(axis=0).toarray()[0]), "max")
    for name, x in (("sum", values), ("sumsq", values**2)):
        check(np.allclose(s[name][:], np.bincount(columns, x, minlength=width), rtol=1e-13, atol=0), name)
    bins = np.clip(np.floor(4 * np.log2(values)) + 16, 0, 63).astype(int)
    hist = np.bincount(columns * 64 + bins, minlength=width * 64).reshape(width, 64)
    check(np.array_equal(s["hist"][:], hist), "hist")

    check(np.array_equal(g["recon/sqerr"][:], raw(folder, f"{i}.sqerr.f4")), "sqerr")
    norm2 = raw(folder, f"{i}.norm2.f4")
    check(np.array_equal(g["recon/norm2"][:], norm2), "norm2")
    x = raw(folder, f"{i}.target.f4").reshape(N, D_OUT)[excluded == 0].astype(np.float64)
    check(np.allclose(g["recon/sum"][:], x.sum(0), rtol=1e-12), "sum of the rows")
    check(g.attrs["nnz"] == len(value) and isinstance(g.attrs["name"], str), "attributes")


def check_dense(f, folder):
    for i, path in enumerate(f["contents/dense"].asstr()[:]):
        d, want = f[path]["values"], raw(folder, f"{i}.dense.f4").reshape(N, WIDTH)
        check(d.id.get_offset() is not None and d.compression is None, "can be mapped")
        mapped = np.memmap(f.filename, d.dtype, "r", d.id.get_offset(), d.shape)
        check(np.array_equal(mapped, d[:]), "mapped")
        if d.dtype == np.uint16:
            x = d[:]
            got = eval(d.attrs["decode"])
            u = want.view("u4").astype("u8")
            near = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16 << 16).astype("u4").view("f4")
            check(d.attrs["dtype"] == "bfloat16" and np.array_equal(got, near), "bf16")
        else:
            check(np.array_equal(d[:], want.astype(d.dtype)), str(d.dtype))


def check_file(f, folder, bits):
    check(f.attrs["lapidary_format"] == "shard" and f.attrs["complete"] == 1, "attributes")
    check(f.attrs["token_base"] == 7 and f.attrs["value_bits"] == bits, "attributes")
    check(f["provenance"].asstr()[()] == '{"made":"for tests \u20ac"}', "provenance")
    check_tokens(f, folder)
    for i in range(3):
        check_sae(f, i, folder, bits)
    check_dense(f, folder)
    filters = set()

    def see(_, d):
        if isinstance(d, h5py.Dataset) and d.chunks:
            filters.add((d.compression, d.shuffle, d.dtype.itemsize > 1))
            for c in range(d.id.get_num_chunks()):
                check(d.id.get_chunk_info(c).filter_mask == 0, "filtered")

    f.visititems(see)
    check(filters == {("gzip", True, True), ("gzip", False, False)}, f"filters: {filters}")


def bent(verify, whole, folder):
    sae = "layers/0/resid_post/sae/layer_0.width_700.canonical"

    def change(name, at, by):
        def do(f):
            f[name][at] = f[name][at] + by
        return do

    def replace(name, make):
        def do(f):
            del f[name]
            make(f)
        return do

    def external(f):
        f.create_dataset("tokens/id", (N,), "i4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])

    def virtual(f):
        layout = h5py.VirtualLayout((N,), "i4")
        layout[:] = h5py.VirtualSource("gone.h5", "x", (N,))
        f.create_virtual_dataset("tokens/id", layout)

    def bomb(f):
        f.create_dataset("documents/text", (1 << 45,), "u1", chunks=(1 << 20,), compression="gzip")

    def big_chunk(f):
        f.create_dataset("tokens/id", data=np.zeros(N, "i4"), chunks=(N,), maxshape=(None,), fletcher32=True)

    cases = {
        "a value of the rows": (change(sae + "/data", 100, 1), "by_feature has something else"),
        "a value of the transpose": (change(sae + "/by_feature/data", 100, 1), "by_feature has something else"),
        "a row of the transpose": (change(sae + "/by_feature/indices", 100, 1), "by_feature"),
        "a feature of a row": (change(sae + "/indices", 3, 1), ""),
        "a feature outside": (change(sae + "/indices", 3, 5000), "of 700"),
        "a feature below": (change(sae + "/indices", 3, -5000), "of 700"),
        "a pointer": (change(sae + "/indptr", 1, 1 << 40), "indptr does not rise"),
        "a pointer of the transpose": (change(sae + "/by_feature/indptr", 1, -1 << 40), "by_feature/indptr"),
        "a value of zero": (lambda f: f[sae + "/by_feature/data"].__setitem__(7, 0), "value 0"),
        "a count": (change(sae + "/stats/n_active", 0, 1), "stats of feature 0"),
        "a histogram": (change(sae + "/stats/hist", (699, 63), 1), "stats of feature 699"),
        "a sum": (change(sae + "/stats/sum", 5, 1e-9), "stats of feature 5"),
        "a mark": (lambda f: f["tokens/excluded"].__setitem__(0, 0), "stats of feature"),
        "an unknown mark": (change("tokens/excluded", 0, 77), "excluded for"),
        "a token": (change("tokens/id", 1000, 1), "tokens/by_id is not what tokens/id says"),
        "a token outside": (change("tokens/id", 1000, 70000), "row 1000: token"),
        "a document": (change("tokens/doc", 1000, 1), "documents/token_ptr says"),
        "where a document begins": (change("documents/token_ptr", 2, 1 << 33), "documents/token_ptr"),
        "where a text ends": (change("documents/text_ptr", 2, 1 << 33), "does not cut"),
        "an error": (lambda f: f[sae + "/recon/sqerr"].__setitem__(7, np.nan), "recon of row 7"),
        "a dense value": (lambda f: f["layers/0/resid_post/dense/values"].__setitem__((7, 1), np.inf),
                          "row 7, component 1"),
        "no `complete`": (lambda f: f.attrs.__delitem__("complete"), "complete"),
        "a later format": (lambda f: f.attrs.__setitem__("schema_major", 2), "use a newer one"),
        "another format": (lambda f: f.attrs.__setitem__("lapidary_format", "other"), "not a shard"),
        "a missing set": (lambda f: f.__delitem__(sae + "/stats/max"), "no data set"),
        "a missing SAE": (lambda f: f.__delitem__(sae), "no group"),
        "an SAE elsewhere": (lambda f: f.move(sae, sae + "x"), "no group"),
        "another shape": (lambda f: f[sae].attrs.__setitem__("shape", np.array([N, 1 << 40])), "shape is"),
        "another count": (lambda f: f[sae].attrs.__setitem__("nnz", 12), "expected [12"),
        "a soft link": (replace("tokens/id", lambda f: f.__setitem__("tokens/id", h5py.SoftLink("/tokens/pos"))),
                        "no data set"),
        "an external link": (replace("tokens", lambda f: f.__setitem__("tokens", h5py.ExternalLink("x.h5", "/tokens"))),
                             "no group"),
        "external bytes": (replace("tokens/id", external), "outside the file"),
        "a virtual set": (replace("tokens/id", virtual), "outside the file"),
        "another type": (replace("tokens/id", lambda f: f.__setitem__("tokens/id", np.zeros(N, "i8"))),
                         "type and rank"),
        "another rank": (replace("tokens/id", lambda f: f.__setitem__("tokens/id", np.zeros((N, 1), "i4"))),
                         "type and rank"),
        "more than is there": (replace("documents/text", bomb), "claims more than the file holds"),
        "another token column": (replace("tokens/id", big_chunk), "tokens/by_id"),
    }
    for name, (do, says) in cases.items():
        path = folder / "bent.h5"
        shutil.copyfile(whole, path)
        with h5py.File(path, "r+") as f:
            do(f)
        r = subprocess.run([verify, "--verify", path], capture_output=True, text=True)
        line = r.stdout.strip()
        check(r.returncode == 1 and says in line and "\n" not in line and line.startswith(str(path)), f"{name}: {line}")
    r = subprocess.run([verify, "--verify", whole], capture_output=True, text=True)
    check(r.returncode == 0, "the untouched one: " + r.stdout)
    with h5py.File(folder / "foreign.h5", "w") as f:
        f["x"] = [1, 2]
    r = subprocess.run([verify, "--verify", folder / "foreign.h5"], capture_output=True, text=True)
    check("not a shard of ours" in r.stdout, "foreign: " + r.stdout)
    print(f"{len(cases)} bent files")


def main():
    maker, verify = sys.argv[1:3]
    for bits in (23, 10, 1):
        with tempfile.TemporaryDirectory() as t:
            folder = pathlib.Path(t)
            subprocess.run([maker, "--make", folder, str(bits)], check=True)
            whole = folder / "shard-000000.h5"
            with h5py.File(whole, "r") as f:
                check_file(f, folder, bits)
            if shutil.which("xxh128sum"):
                check(subprocess.run(["xxh128sum", "-c", "shard-000000.h5.xxh3"], cwd=t).returncode == 0, "xxh128sum")
            if bits == 23:
                bent(verify, whole, folder)
    print(f"{checks} checks, {failures} failed")
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()
