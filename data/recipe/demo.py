#!/usr/bin/env python3
"""Write the corpus that `lapidary extract` is shown on: held-out text of many registers, small enough to ship.

    demo.py --work WORK --out data/demo.jsonl [--characters 18000]

One JSON object a line: "id" (register and number), "source" (the register), "text".  From every register but policies (a
template, always the same) and dialogues (their turn markers are tokens only when asked for) whole held-out documents, in the order of
the hash of their text, until they make up so many characters; a document longer than a third of that gives its first part,
up to a line's or sentence's end.  The registers take turns, so that any stretch of the file is mixed.
"""
import argparse
import hashlib
import itertools
import json
import pathlib

import corpus


def beginning(document, characters):
    if len(document) <= characters:
        return document
    end = max(document.rfind("\n", 0, characters), document.rfind(". ", 0, characters) + 1)
    return document[:end if end > characters // 2 else characters].strip()


def chosen(documents, characters):
    """Until the next would be too much; the first is always there."""
    out = []
    for d in sorted(documents, key=lambda d: hashlib.sha256(d.encode()).digest()):
        d = beginning(d, characters // 3)
        if out and sum(map(len, out)) + len(d) > characters:
            break
        out.append(d)
    return out


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--characters", type=int, default=18000)
    a = args.parse_args()
    rows = [[{"id": f"{r}-{i}", "source": r, "text": d}
             for i, d in enumerate(chosen(corpus.load(a.work, "held", r), a.characters))]
            for r in corpus.REGISTERS if r not in ("policies", "dialogues")]
    turns = [row for turn in itertools.zip_longest(*rows) for row in turn if row]
    a.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in turns), encoding="utf-8")
    print(f"{a.out}: {len(turns)} documents, {a.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
