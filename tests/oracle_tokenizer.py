#!/usr/bin/env python3
"""A million seeded strings must get the same ids from our tokenizer as from the `sentencepiece` package.

    oracle_tokenizer.py path/to/tokenizer_ids [--strings 1000000] [--vocabularies 400] [--seed 0]

First the golden vocabulary, with hard strings (goldens/random_strings.py).  Then small random vocabularies that no trainer
would make, to corner the merging itself: equal scores, pieces that cannot be reached, pieces with spaces inside,
user-defined pieces that overlap, characters that are missing.
"""
import argparse
import array
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "goldens"))

import sentencepiece as spm  # noqa: E402
from sentencepiece import sentencepiece_model_pb2 as pb  # noqa: E402

from random_strings import SPACE, Strings  # noqa: E402

PIECE = pb.ModelProto.SentencePiece


def ours(program, model, strings):
    message = b"".join(len(s).to_bytes(4, sys.byteorder) + s for s in strings)
    done = subprocess.run([program, model], input=message, stdout=subprocess.PIPE, check=True)
    words, at = array.array("i", done.stdout), 0
    for _ in strings:
        n = words[at]
        yield list(words[at + 1:at + 1 + n])
        at += 1 + n
    assert at == len(words)


def compare(program, model, sp, strings, what):
    for s, ids in zip(strings, ours(program, model, strings)):
        want = sp.encode(s)
        if ids != want:
            sys.exit(f"{what}: {s!r}\n  sentencepiece {want}\n  lapidary      {ids}")


def random_model(r):
    """A vocabulary over a handful of characters, as the bytes of a ModelProto, and its characters."""
    alphabet = r.sample(["a", "b", "c", "é", "世", "\U0001f600", SPACE, "\n", "<", ">", "\ufffd"], r.randint(2, 6))
    m = pb.ModelProto()
    m.trainer_spec.model_type = pb.TrainerSpec.BPE
    m.trainer_spec.byte_fallback = True
    m.normalizer_spec.name = "identity"
    m.normalizer_spec.add_dummy_prefix = False
    m.normalizer_spec.remove_extra_whitespaces = False
    seen = {"<unk>", "<s>"}
    m.pieces.add(piece="<unk>", type=PIECE.UNKNOWN, score=0)
    m.pieces.add(piece="<s>", type=PIECE.CONTROL, score=0)
    for b in range(256):
        m.pieces.add(piece=f"<0x{b:02X}>", type=PIECE.BYTE, score=0)

    def add(piece, kind, score):
        if piece not in seen:
            seen.add(piece)
            m.pieces.add(piece=piece, type=kind, score=score)

    def word(low, high):
        return "".join(r.choice(alphabet) for _ in range(r.randint(low, high)))

    levels = r.choice([1, 2, 5, 1000])  # few levels of score: many ties
    for _ in range(r.choice([0, 0, 1, 3, 6])):
        add(word(1, 5), PIECE.USER_DEFINED, float(-r.randrange(levels)))
    for _ in range(r.randint(3, 60)):
        add(word(2, r.choice([2, 3, 6])), PIECE.NORMAL, -r.randrange(levels) * r.choice([1.0, 0.5]))
    for c in alphabet:
        if r.random() < 0.8:
            add(c, PIECE.NORMAL, float(-r.randrange(levels)))
    return m.SerializeToString(), [c.replace(SPACE, r.choice([SPACE, " "])) for c in alphabet]


def random_vocabularies(program, n, seed):
    r = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "random.model")
        for i in range(n):
            model, alphabet = random_model(r)
            with open(path, "wb") as f:
                f.write(model)
            sp = spm.SentencePieceProcessor(model_proto=model)
            units = [c.encode() for c in alphabet] + [b" ", b"z", b"\xff"]
            weights = [8] * len(alphabet) + [2, 1, 1]
            strings = [b"".join(r.choices(units, weights, k=r.choice([1, 2, 3, 5, 8, 20, 60]))) for _ in range(400)]
            strings += [r.choice(units) * r.randint(1, 300) for _ in range(20)]
            compare(program, path, sp, strings, f"random vocabulary {i} of seed {seed}")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("program")
    args.add_argument("--strings", type=int, default=1000000)
    args.add_argument("--vocabularies", type=int, default=400)
    args.add_argument("--seed", type=int, default=0)
    a = args.parse_args()
    path = os.path.join(HERE, "goldens", "tokenizer", "tokenizer.model")
    sp = spm.SentencePieceProcessor(model_file=path)
    strings = Strings(a.seed, [sp.id_to_piece(i) for i in range(sp.get_piece_size())])
    done, bytes_done = 0, 0
    while done < a.strings:
        batch = [strings.next() for _ in range(min(20000, a.strings - done))]
        compare(a.program, path, sp, batch, "golden vocabulary")
        done += len(batch)
        bytes_done += sum(map(len, batch))
    print(f"{done} strings, {bytes_done} bytes: equal")
    random_vocabularies(a.program, a.vocabularies, a.seed)
    print(f"{a.vocabularies} random vocabularies, 420 strings each: equal")


if __name__ == "__main__":
    main()
