#!/usr/bin/env python3
"""Write what libsentencepiece (the `sentencepiece` package) makes of hard strings, for tests/test_tokenizer.c.

    make_tokenizer_goldens.py --dir tokenizer

reads DIR/tokenizer.model and writes there
    encode.tsv   text, then its ids
    decode.tsv   ids, then their text
with every byte of a text that is not plain printable ASCII, '%', and a space at either end, as %XX.
"""
import argparse
import os
import random

import sentencepiece as spm

from random_strings import BROKEN, EMOJI, ODD, SPACE, SPECIALS, WORDS, Strings


def escape(b):
    plain = [0x20 < c < 0x7f and c != 0x25 or c == 0x20 and 0 < i < len(b) - 1 for i, c in enumerate(b)]
    return "".join(chr(c) if p else f"%{c:02X}" for c, p in zip(b, plain))


def texts(pieces):
    for group in (WORDS, SPECIALS, EMOJI, ODD):
        for s in group:
            yield s.encode()
            yield b"a" + s.encode() + b"b"
            yield b" " + s.encode() + b" " + s.encode()
    for b in BROKEN:
        yield b
        yield b"x" + b
        yield b + b"y"
    for c in range(256):
        yield bytes([c])
    for unit in (" ", "\n", "\t", SPACE):
        for n in range(1, 71):
            yield (unit * n).encode()
            yield ("x" + unit * n + "y").encode()
    for n in (100, 1000):
        yield b"a" * n
        yield b"\xff" * (n // 10)
        yield "é".encode() * (n // 10)
    strings = Strings(1, pieces)
    for _ in range(2000):
        yield strings.next()


def sequences(sp):
    """Random ids without the ones Lapidary hides (control, unknown, turn markers): those we show by choice."""
    r = random.Random(2)
    first_byte, n = sp.piece_to_id("<0x00>"), sp.get_piece_size()
    hidden = set(range(108)) | {sp.piece_to_id(p) for p in ("[toxicity=0]", "<unused99>")}
    some = [b"\xe2\x96\x81", b"\xf0\x9f\x98\x80", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f", b"A"]
    for _ in range(800):
        ids = []
        for _ in range(r.randint(1, 12)):
            k = r.randint(0, 3)
            if k == 0:
                ids += [first_byte + b for b in r.choice(some)]
            elif k == 1:
                ids.append(first_byte + r.randint(0, 255))
            else:
                ids.append(r.randint(0, n - 1))
        ids = [i for i in ids if i not in hidden]
        if ids:
            yield ids


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--dir", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer"))
    a = args.parse_args()
    sp = spm.SentencePieceProcessor(model_file=os.path.join(a.dir, "tokenizer.model"))
    pieces = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
    with open(os.path.join(a.dir, "encode.tsv"), "w", encoding="ascii") as f:
        for t in filter(None, texts(pieces)):
            f.write(escape(t) + "\t" + " ".join(map(str, sp.encode(t))) + "\n")
    with open(os.path.join(a.dir, "decode.tsv"), "w", encoding="ascii") as f:
        for ids in sequences(sp):
            f.write(" ".join(map(str, ids)) + "\t" + escape(sp.decode(ids).encode()) + "\n")


if __name__ == "__main__":
    main()
