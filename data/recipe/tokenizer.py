#!/usr/bin/env python3
"""Train the tokenizer of the embedded models, and write the corpus as tokens.

    tokenizer.py --work WORK

Gemma's options and Gemma's ids: the trainer's settings, the special pieces and their order are those of the golden
tokenizer (tests/goldens/make_tokenizer.py, whose code this uses), so <start_of_turn> is 106, runs of newlines begin at
108, bytes at 217, and the chat and ShieldGemma templates work unchanged.  Two settings differ.  8192 pieces: with 4096,
half of the features of a trial's SAE were fragments of words.  Coverage 0.9999: the accented names of the World
Factbook may fall to bytes; pieces are better spent on words.

The training text is a sample of the corpus by SHARES, so that no large register (the dictionary) fills the vocabulary
with its own.  They are not the weights of training (data.MIX): what is hard to predict is read more often than it needs
pieces.  It is fed by lines, without the turn markers.

Writes WORK/tokenizer/tokenizer.model and WORK/tokens/{train,held}/<register>.bin: 16-bit ids, each document
<bos> ... <eos>; and WORK/tokens/counts.json: tokens and bytes per token.
"""
import argparse
import json
import pathlib
import random
import sys

import numpy as np
import sentencepiece as spm

import corpus

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"))
import make_tokenizer  # noqa: E402

PIECES = 8192
SAMPLE = 16_000_000         # characters
SEED = 3
SHARES = {"speeches": .17, "sea": .06, "novels": .13, "scripture": .13, "dictionary": .18, "countries": .06, "manual": .05,
          "hackers": .03, "wit": .01, "recipes": .03, "weather": .02, "stories": .05, "dialogues": .07, "policies": .01}


def sample(work, characters):
    """Lines of the training documents, register by register in proportion to SHARES."""
    rng = random.Random(SEED)
    total = sum(SHARES.values())
    for register, weight in SHARES.items():
        documents = corpus.load(work, "train", register)
        rng.shuffle(documents)
        left = characters * weight / total
        for document in documents:
            if left <= 0:
                break
            left -= len(document)
            for turn in ("<start_of_turn>", "<end_of_turn>"):
                document = document.replace(turn, "\n")
            yield from (line for line in document.split("\n") if line)


def encode(work, model):
    counts = {}
    for part in ("train", "held"):
        folder = work / "tokens" / part
        folder.mkdir(parents=True, exist_ok=True)
        for register in corpus.REGISTERS:
            documents = corpus.load(work, part, register)
            ids = [np.array([2, *e, 1], np.uint16) for e in model.encode(documents)]
            ids = np.concatenate(ids)
            ids.tofile(folder / (register + ".bin"))
            n_bytes = sum(len(d.encode()) for d in documents)
            counts.setdefault(register, {})[part] = {"tokens": len(ids), "bytes": n_bytes}
            print(f"{part:6s}{register:11s}{len(ids):10d} tokens {n_bytes / len(ids):6.2f} bytes a token", flush=True)
    (work / "tokens" / "counts.json").write_text(json.dumps(counts, indent=1))


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--pieces", type=int, default=PIECES)
    args.add_argument("--characters", type=int, default=SAMPLE, help="size of the sample to learn from")
    a = args.parse_args()
    path = a.work / "tokenizer" / "tokenizer.model"
    path.parent.mkdir(parents=True, exist_ok=True)
    proto = make_tokenizer.train(list(sample(a.work, a.characters)), a.pieces, coverage=0.9999)
    path.write_bytes(make_tokenizer.like_gemma(proto).SerializeToString(deterministic=True))
    encode(a.work, spm.SentencePieceProcessor(model_file=str(path)))


if __name__ == "__main__":
    main()
