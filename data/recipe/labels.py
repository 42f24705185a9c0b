#!/usr/bin/env python3
"""Name features by a fixed procedure, and measure what the names are worth.

    labels.py --work WORK --saes FOLDER --out FOLDER [--site res] [--layer 3] [--score 60]

A name is a sentence that a program can act on; there are four kinds of them, each with at most six words:

    the word "ship", "whale"            a place whose token is one of these
    after "of", "in"                    a place whose token before is one of these
    before "said"                       a place whose next token is one of these
    near "whale", "sea", "boat"         a place with some of these within sixteen tokens

Naming, on training text.  For every kind the words are added one by one, those first whose places the feature fires
on most surely, as long as F1 against the feature's places (weighted by activation) rises.  Of the four, that name is
kept which best tells sixteen windows where the feature fires from sixteen where it does not.

Scoring, on held-out text, by a reader who knows nothing but the name: the class Reader, made from the sentence alone.
It is shown five snippets of 32 tokens in which the feature fires, drawn over the whole range of its activations, and
five in which it does not, in a seeded order, and picks the five that fit the name best (chance when they fit alike).
Out of ten it gets 2 x right picks; guessing gives 5 on average.  --score does this for so many live features drawn at
random (seed 4), eight times each, and prints the distribution; nothing about them was chosen.

Writes Neuronpedia's layout under OUT/<model>/<source>/ (explanations with typeName "lapidary_auto", and activity.py's
features and activations), scores.json, and examples.md: the page of examples of the scored features.
"""
import argparse
import json
import pathlib
import re

import numpy as np
import sentencepiece as spm
import torch

import activity as act
import export
import sae

KINDS = ("the word", "after", "before", "near")
WORDS, NEAR, SNIPPET = 6, 16, 32
NAMING, ROUNDS, MIN_FIRES = 16, 8, 20


def word(piece):
    """A piece as a reader sees it: no space, lower case."""
    return piece.replace("\u2581", "").strip().lower()


class Text:
    """Windows as words: for every place the number of its word, and a table of words."""

    def __init__(self, rows, pieces):
        words = [word(p) for p in pieces]
        self.names = sorted(set(words))
        number = {w: i for i, w in enumerate(self.names)}
        self.places = np.array([number[w] for w in words])[rows]
        self.quotable = np.array([bool(n) and '"' not in n for n in self.names])
        self.plain = np.array([re.fullmatch(r"[a-z']{3,}", n) is not None for n in self.names])

    def shifted(self, by):
        """The word `by` places further on (-1: the one before); -1 beyond the end."""
        out = np.full_like(self.places, -1)
        if by < 0:
            out[:, -by:] = self.places[:, :by]
        elif by > 0:
            out[:, :-by] = self.places[:, by:]
        else:
            out[:] = self.places
        return out


class Reader:
    """Fits a snippet of words to a name, knowing only the name."""

    def __init__(self, name):
        self.kind = next(k for k in KINDS if name.startswith(k + " "))
        self.words = set(re.findall(r'"([^"]*)"', name))

    def fit(self, words):
        hits = [w in self.words for w in words]
        if self.kind == "near":
            return len({w for w in words if w in self.words})
        if self.kind == "after":
            hits = hits[:-1]
        elif self.kind == "before":
            hits = hits[1:]
        return min(1, sum(hits)) + 0.01 * sum(hits)


def sentence(kind, words):
    return kind + " " + ", ".join('"' + w.replace('"', "''") + '"' for w in words)


def grow(words_at, weight, base, text):
    """Words whose places the feature fires on, as long as F1 rises.  words_at: word at each firing place; base [W]: how
    often each word stands anywhere."""
    mass = np.bincount(words_at[words_at >= 0], weight[words_at >= 0], len(text.names))
    sure = np.where(text.quotable & (mass > 0), mass / np.maximum(base, 1), 0) * (mass > 0.02 * weight.sum())
    chosen, got, cost, best = [], 0.0, 0.0, 0.0
    for i in np.argsort(-sure)[:40]:
        if sure[i] <= 0 or len(chosen) == WORDS:
            break
        f1 = 2 * (got + mass[i]) / (weight.sum() + cost + base[i])
        if f1 > best:
            chosen, got, cost, best = chosen + [text.names[i]], got + mass[i], cost + base[i], f1
    return chosen


def nearby(text, w, p, log_base):
    """Words over-represented within NEAR places of the firing ones."""
    counts = np.zeros(len(text.names))
    for window, place in list(zip(w, p))[:400]:
        counts[np.unique(text.places[window, max(1, place - NEAR):place + NEAR])] += 1
    n = min(len(w), 400)
    gain = counts / n * (np.log((counts + 0.5) / n) - log_base)
    gain[~text.plain] = 0
    return [text.names[i] for i in np.argsort(-gain)[:WORDS] if gain[i] > 0.02]


class Namer:
    def __init__(self, activity, pieces):
        self.a, self.text = activity, Text(activity.rows, pieces)
        self.at = {"the word": self.text.shifted(0), "after": self.text.shifted(-1), "before": self.text.shifted(1)}
        n = len(self.text.names)
        self.base = {k: np.bincount(t[activity.masks & (t >= 0)], minlength=n).astype(float)
                     for k, t in self.at.items()}
        some = np.random.default_rng(0).integers(0, len(activity.rows), 4000)
        present = np.zeros(n)
        for window in some:
            present[np.unique(self.text.places[window, 1:1 + 2 * NEAR])] += 1
        self.log_base = np.log((present + 0.5) / len(some))

    def name(self, feature):
        w, p, v = self.a.of(feature)
        if len(v) < MIN_FIRES:
            return None
        grown = {k: grow(self.at[k][w, p], v / v.max(), self.base[k], self.text) for k in self.at}
        found = [sentence(k, words) for k, words in grown.items() if words]
        strong = np.argsort(-v)[:400]
        near = nearby(self.text, w[strong], p[strong], self.log_base)
        found += [sentence("near", near)] if near else []
        tests = [picks(self.a, self.text, feature, NAMING, round_) for round_ in range(2)]
        return max(found, key=lambda n: sum(right(Reader(n), *t) for t in tests)) if found else None


def picks(a, text, feature, n, round_):
    """n snippets (lists of words) where the feature fires, n where it does not: drawn by (feature, round)."""
    rng = np.random.default_rng([feature, round_])
    w, p, v = a.of(feature)
    order = np.argsort(v)
    fires = [order[int((i + rng.random()) * len(order) / n)] for i in range(n)]
    taken, out = set(w.tolist()), ([], [])
    for i in fires:
        lo = int(np.clip(p[i] - rng.integers(4, SNIPPET - 4), 1, text.places.shape[1] - SNIPPET))
        out[0].append([text.names[x] for x in text.places[w[i], lo:lo + SNIPPET]])
    while len(out[1]) < n:
        window = int(rng.integers(len(a.rows)))
        lo = int(rng.integers(1, text.places.shape[1] - SNIPPET))
        here = p[w == window] if window in taken else ()
        if a.masks[window, lo:lo + SNIPPET].all() and not any(lo <= q < lo + SNIPPET for q in here):
            out[1].append([text.names[x] for x in text.places[window, lo:lo + SNIPPET]])
    return *out, rng


def right(reader, fires, silent, rng):
    """How many of the n best fitting snippets are among those where it fires."""
    fit = np.array([reader.fit(s) for s in fires + silent]) + rng.random(len(fires) + len(silent)) * 1e-6
    return int((np.argsort(-fit)[:len(fires)] < len(fires)).sum())


def score(name, a, text, feature):
    """Mean of ROUNDS scores out of ten on held-out text, or None where it hardly fires there."""
    if len(a.of(feature)[2]) < 5:
        return None
    return float(np.mean([2 * right(Reader(name), *picks(a, text, feature, 5, 100 + r)) for r in range(ROUNDS)]))


def page(a, features, names, scores, pieces):
    """Markdown: each feature with its name, score and strongest examples, the token it fires on most in bold."""
    lines = []
    for f in features:
        mark = "not scored" if scores.get(f) is None else f"{scores[f]:.1f} of 10"
        lines += [f"### {f}: {names.get(f) or 'no name'} ({mark})", ""]
        for window, place in act.examples(a, f)[:5]:
            ids, values = act.snippet(a, f, window, place)
            shown = [pieces[i].replace("\u2581", " ").replace("\n", "\u21b5") for i in ids]
            top = int(values.argmax())
            body = shown[top].strip() or "\u2423"
            shown[top] = (" " if shown[top].startswith(" ") else "") + "**" + body + "**"
            lines.append(f"- {a.registers[window]}: " + "".join(shown).replace("|", "\\|"))
        lines.append("")
    return "\n".join(lines)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--saes", required=True, type=pathlib.Path)
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base")
    args.add_argument("--model-id", default="lapidary-base")
    args.add_argument("--site", default="res")
    args.add_argument("--layer", type=int, default=3)
    args.add_argument("--score", type=int, default=60)
    args.add_argument("--windows", type=int, default=700, help="windows of each register to name from")
    args.add_argument("--threads", type=int, default=2)
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    sp = spm.SentencePieceProcessor(model_file=str(a.work / "tokenizer" / "tokenizer.model"))
    pieces = [sp.id_to_piece(i) for i in range(sp.vocab_size())]
    net, scope = export.load(a.work, a.name), sae.Scope(sae.find(a.saes)[a.site, a.layer])
    read = sae.watched(a.site)[0]
    train, held = (act.gather(net, scope, a.layer, a.work, part, a.windows, site=read) for part in ("train", "held"))
    namer, text = Namer(train, pieces), Text(held.rows, pieces)
    names = {f: namer.name(f) for f in range(scope.b_enc.numel())}
    source = sae.source_id(a.site, a.layer, scope.b_enc.numel())
    act.write(a.out, a.model_id, source, net, scope, train, pieces)
    act.write_batch(a.out / a.model_id / source / "explanations", [
        {"modelId": a.model_id, "layer": source, "index": str(f), "description": n, "typeName": "lapidary_auto",
         "explanationModelName": "labels.py"} for f, n in names.items() if n])
    live = [f for f in names if len(train.of(f)[2])]
    chosen = sorted(np.random.default_rng(4).permutation(live)[:a.score].tolist())
    scores = {f: score(names[f], held, text, f) if names[f] else None for f in chosen}
    marks = [0.0 if s is None else s for s in scores.values()]      # no name, or silent on held-out text: not legible
    summary = {"features": len(chosen), "unscored": sum(s is None for s in scores.values()),
               "median": float(np.median(marks)),
               "share_at_8": float(np.mean(np.array(marks) >= 8)),
               "distribution": np.histogram(marks, np.arange(0, 10.5, 1))[0].tolist()}
    (a.out / "scores.json").write_text(json.dumps({"summary": summary, "scores": scores,
                                                   "names": {f: names[f] for f in chosen}}, indent=1))
    (a.out / "examples.md").write_text(page(train, chosen, names, scores, pieces))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
