"""Tokens for training: which registers, how much of each, in which order.

The mix is a matter of sampling: registers are drawn by weight, however long they are, so a small one (the sea, wit) is
read more often than a large one (the dictionary).  A window is <bos> and n tokens that follow each other in a register.
Registers with a form of their own (a recipe, a dialogue) are mostly met from the beginning of a document, the others
anywhere; a window may run over the end of a document into the next, whose <eos> and <bos> it then holds.

The order comes from one generator whose state is saved with every checkpoint: a resumed run reads what an uninterrupted
one would have read.
"""
import pathlib

import numpy as np

BOS, EOS = 2, 1
MIX = {"speeches": .15, "sea": .05, "novels": .12, "scripture": .11, "dictionary": .17, "countries": .10, "manual": .10,
       "hackers": .055, "wit": .015, "recipes": .02, "weather": .015, "stories": .03, "dialogues": .055, "policies": .01}
NATURAL = ("speeches", "sea", "novels", "scripture", "dictionary", "countries", "manual", "hackers", "wit")
FROM_START = {"recipes": .8, "weather": .8, "stories": .8, "dialogues": .9, "policies": .95}
ELSEWHERE = .2          # how often the other registers are met from a document's beginning


def read(work, part, register):
    return np.fromfile(pathlib.Path(work) / "tokens" / part / (register + ".bin"), np.uint16)


class Batches:
    """Endless batches [n][length + 1] of ids, drawn by the weights of the mix."""

    def __init__(self, work, seed, mix=None):
        self.mix = dict(mix or MIX)
        self.names = list(self.mix)
        self.weights = np.array([self.mix[n] for n in self.names]) / sum(self.mix.values())
        self.tokens = {n: read(work, "train", n) for n in self.names}
        self.starts = {n: np.flatnonzero(t == BOS) for n, t in self.tokens.items()}
        self.rng = np.random.default_rng(seed)

    def window(self, length):
        name = self.names[self.rng.choice(len(self.names), p=self.weights)]
        tokens = self.tokens[name]
        if self.rng.random() < FROM_START.get(name, ELSEWHERE):
            at = int(self.rng.choice(self.starts[name])) + 1
        else:
            at = int(self.rng.integers(1, len(tokens)))
        ids = np.empty(length + 1, np.int64)
        ids[0] = BOS
        ids[1:] = np.take(tokens, np.arange(at, at + length), mode="wrap")
        return ids

    def batch(self, n, length):
        return np.stack([self.window(length) for _ in range(n)])

    def reseed(self, seed):
        """Begin a new order."""
        self.rng = np.random.default_rng(seed)
        return self

    def state(self):
        return self.rng.bit_generator.state

    def restore(self, state):
        self.rng.bit_generator.state = state


def held_windows(work, register, length, at_most=None):
    """All of a register's held-out tokens, each predicted once: windows [n][length + 1] that begin with <bos> and a mask
    [n][length] of the targets that count.  Documents are cut, never joined, and every cut begins again with <bos>: what
    stood before it is not seen, which the n-gram baseline is told too."""
    tokens = read(work, "held", register)
    starts = np.flatnonzero(tokens == BOS)
    ends = np.append(starts[1:], len(tokens))
    rows, masks = [], []
    for start, end in zip(starts, ends):
        body = tokens[start + 1:end]
        for at in range(0, len(body), length):
            piece = body[at:at + length]
            row, mask = np.zeros(length + 1, np.int64), np.zeros(length, bool)
            row[0], row[1:1 + len(piece)], mask[:len(piece)] = BOS, piece, True
            rows.append(row)
            masks.append(mask)
    rows, masks = np.stack(rows), np.stack(masks)
    if at_most and len(rows) > at_most:
        keep = np.linspace(0, len(rows) - 1, at_most).astype(int)
        rows, masks = rows[keep], masks[keep]
    return rows, masks
