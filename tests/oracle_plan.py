#!/usr/bin/env python3
"""Plans against sentencepiece, xxhash and a few lines of Python that know the rules from store/plan.h alone.

    oracle_plan.py TEST_PLAN DATA

Every number of plans of the demo corpus and of a folder of texts is worked out again: where documents lie, pieces and where
they are cut, token counts, hashes of texts, tokens and file, shards, sums.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import sentencepiece
    import xxhash
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

program, data = sys.argv[1], pathlib.Path(sys.argv[2])
sp = sentencepiece.SentencePieceProcessor(model_file=str(data / "base" / "tokenizer.model"))
BOS = 2


def cut(text, most):
    """Length of the first piece, in bytes."""
    if len(text) <= most:
        return len(text)
    at = text.rfind(b"\n", 0, most) + 1 or max(text.rfind(b" ", 1, most + 1), 0)
    if at:
        return at
    return next((i for i in range(most, most - 4, -1) if text[i] & 0xC0 != 0x80), most)


def pieces(text, most):
    out = []
    while text:
        n = cut(text, most)
        ids = sp.encode(text[:n].decode())
        h = xxhash.xxh3_64(text[:n])
        h.update(b"".join(i.to_bytes(4, "little") for i in ids))
        out.append([n, len(ids), h.hexdigest()])
        text = text[n:]
    return out


def documents(path, key):
    files = [path] if path.is_file() else sorted((p for p in path.rglob("*.txt")), key=lambda p: bytes(p.relative_to(path)))
    for f, file in enumerate(files):
        at = 0
        if file.suffix == ".txt":
            yield f, 1, None, 0, file.stat().st_size, file.read_bytes()
            continue
        for n, line in enumerate(file.read_bytes().split(b"\n")):
            if line:
                row = json.loads(line)
                yield f, n + 1, row[key] if key else None, at, len(line), row["text"].encode()
            at += len(line) + 1


def shards(windows, most):
    out = []
    for i, n in enumerate(windows):
        if not out or out[-1]["tokens"] + n > most:
            first = out[-1]["first_token"] + out[-1]["tokens"] if out else 0
            out.append({"shard": len(out), "first_window": i, "windows": 0, "first_token": first, "tokens": 0})
        out[-1]["windows"] += 1
        out[-1]["tokens"] += n
    return out


def check(corpus, context, shard_tokens, piece_bytes, key):
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "plan.jsonl"
        subprocess.run([program, str(corpus), str(plan), str(context), str(shard_tokens), str(piece_bytes)] + ([key] if key else []),
                       check=True)
        first, rest = plan.read_bytes().split(b"\n", 1)
    assert json.loads(first)["hash"] == xxhash.xxh3_128_hexdigest(rest), "hash of the plan"
    lines = [json.loads(line) for line in rest.splitlines()]
    head, lines = lines[0], lines[1:]
    got = {k: [line for line in lines if k in line and list(line)[0] == k] for k in ("file", "document", "shard")}
    want, windows = [], []
    for f, line, k, at, length, text in documents(corpus, key):
        p = pieces(text, piece_bytes)
        want.append({"document": len(want), "file": f, "line": line, "key": k, "offset": at, "length": length,
                     "bytes": len(text), "hash": xxhash.xxh3_128_hexdigest(text), "pieces": p})
        for _, n, _ in p:
            windows += [min(context - 1, n - i) + 1 for i in range(0, n, context - 1)]
    for g, w in zip(got["document"], want, strict=True):
        assert g == w, (g, w)
    assert got["shard"] == shards(windows, shard_tokens), "shards"
    sums = {"files": len(got["file"]), "documents": len(want), "pieces": sum(len(d["pieces"]) for d in want),
            "windows": len(windows), "shards": len(got["shard"]), "tokens": sum(windows),
            "bytes": sum(d["bytes"] for d in want), "empty": sum(not d["bytes"] for d in want), "bos": BOS}
    assert sums == {k: head[k] for k in sums}, (sums, head)
    print(f"{corpus.name}: context {context}, shards of {shard_tokens}, pieces of {piece_bytes}: {sums}")


check(data / "demo.jsonl", 512, 65536, 1 << 20, "id")
check(data / "demo.jsonl", 128, 4000, 1000, None)
check(data / "demo.jsonl", 2, 1, 16, "source")
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "b").mkdir()
    (folder / "a.txt").write_bytes((data / "check.txt").read_bytes())
    (folder / "b" / "empty.txt").write_bytes(b"")
    (folder / "b.txt").write_text("\U0001F40B" * 3000 + "é" * 999 + " " * 2000 + "\n" * 3000, encoding="utf-8")
    check(folder, 64, 1000, 777, None)
