#!/usr/bin/env python3
"""The baseline the base model must beat: an interpolated Kneser-Ney trigram, register by register.

    ngram.py --work WORK [--length 512]

Modified Kneser-Ney [1] in its interpolated form, over the same tokens and the same held-out windows as the model:

    P(c | a b) = (n(abc) - D(n(abc))) / n(ab.)  +  g(ab) P(c | b)

where the lower orders count in how many different contexts a word was seen instead of how often, D takes one of three
discounts (for counts of 1, 2, and 3 or more) worked out from the counts of counts, g is what the discounts set free,
and the lowest order is mixed with a uniform distribution over the vocabulary, so nothing has probability 0.

Each register has two of them, and the better one counts: one trained on the register's own training tokens, one on
those of all the natural registers together.  The unigram (counts + 1 over the register) says what knowing the register
alone is worth.  If the model was evaluated before (train.py --evaluate), its losses are printed beside them.

Writes WORK/ngram.json.

[1] Chen, Goodman: An empirical study of smoothing techniques for language modeling, 1998.
"""
import argparse
import json
import pathlib

import numpy as np

import data

BITS = 14           # of an id; three fit into an int64
BOS = data.BOS


def joined(*columns):
    key = np.zeros(len(columns[0]), np.int64)
    for c in columns:
        key = key << BITS | c
    return key


def look_up(keys, values, wanted):
    """values at wanted keys, 0 where there is none.  keys are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


class Level:
    """One order: discounted counts of (context, word), and what each context gives to the order below."""

    def __init__(self, keys, counts):
        """keys sorted, the last BITS of each the word."""
        of = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
        y = of[1] / max(1.0, of[1] + 2 * of[2])
        discounts = [0.0] + [max(0.0, min(k, k - (k + 1) * y * of[k + 1] / max(1.0, of[k]))) for k in (1, 2, 3)]
        taken = np.array(discounts)[np.minimum(counts, 3)]
        self.keys, self.left = keys, counts - taken
        contexts = keys >> BITS
        first = np.flatnonzero(np.append(True, contexts[1:] != contexts[:-1]))
        self.contexts = contexts[first]
        self.total = np.add.reduceat(counts, first).astype(float)
        self.free = np.add.reduceat(taken, first)

    def probability(self, context, word, below):
        total = look_up(self.contexts, self.total, context)
        seen = total > 0
        total = np.where(seen, total, 1.0)
        p = look_up(self.keys, self.left, context << BITS | word) / total
        back = np.where(seen, look_up(self.contexts, self.free, context) / total, 1.0)
        return p + back * below


class Trigram:
    def __init__(self, tokens, vocabulary):
        """tokens: documents <bos> ... <eos>, one after the other."""
        self.vocabulary = vocabulary
        t = tokens.astype(np.int64)
        b = np.append(BOS, t[:-1])
        a = np.append(BOS, b[:-1])
        a = np.where(b == BOS, BOS, a)      # nothing of the document before
        words = t != BOS                    # <bos> is given, never predicted
        tri, n = np.unique(joined(a[words], b[words], t[words]), return_counts=True)
        bi, n2 = np.unique(tri & ((1 << 2 * BITS) - 1), return_counts=True)
        uni, n1 = np.unique(bi & ((1 << BITS) - 1), return_counts=True)
        self.levels = [Level(uni, n1), Level(bi, n2), Level(tri, n)]

    def probability(self, a, b, c):
        p = np.full(len(c), 1.0 / self.vocabulary)
        nothing = np.zeros_like(c)
        for level, context in zip(self.levels, (nothing, b, joined(a, b))):
            p = level.probability(context, c, p)
        return p


def targets(rows, masks):
    """(a, b, c) of every target: two tokens of context, the first window's position seeing <bos> <bos>."""
    c, b = rows[:, 1:], rows[:, :-1]
    a = np.concatenate((np.full((len(rows), 1), BOS), rows[:, :-2]), 1)
    return a[masks], b[masks], c[masks]


def nats(p):
    return float(-np.log(p).mean())


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base", help="the run whose held.json stands beside")
    args.add_argument("--length", type=int, default=512, help="tokens a window, as the model was evaluated")
    args.add_argument("--vocabulary", type=int, default=8192)
    a = args.parse_args()
    pooled = Trigram(np.concatenate([data.read(a.work, "train", r) for r in data.NATURAL]), a.vocabulary)
    held = a.work / a.name / "held.json"
    model = json.loads(held.read_text())["registers"] if held.exists() else {}
    table = {}
    print("register\ttokens\tunigram\ttrigram\ttrigram_own\ttrigram_all\tmodel")
    for register in data.MIX:
        tokens = data.read(a.work, "train", register)
        x, y, z = targets(*data.held_windows(a.work, register, a.length))
        counts = np.bincount(tokens, minlength=a.vocabulary) + 1.0
        row = {"tokens": len(z), "unigram": nats(counts[z] / counts.sum()),
               "own": nats(Trigram(tokens, a.vocabulary).probability(x, y, z)),
               "all": nats(pooled.probability(x, y, z))}
        row["trigram"] = min(row["own"], row["all"])
        row["model"] = model.get(register, {}).get("nats")
        table[register] = row
        print(f"{register}\t{row['tokens']}\t{row['unigram']:.3f}\t{row['trigram']:.3f}\t{row['own']:.3f}\t{row['all']:.3f}\t{row['model'] or ''}", flush=True)
    (a.work / "ngram.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
