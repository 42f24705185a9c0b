#!/usr/bin/env python3
"""Name features by a fixed procedure, and measure what the names are worth.

    labels.py --work WORK --saes FOLDER --out FOLDER [--site res] [--layer 3] [--score 60]

A name is a sentence that a program can act on.  It says at which tokens the feature fires, in at most six words, and
perhaps in which registers of the corpus:

    the word "ship", "whale"            the token is one of these
    after "of", "in"                    the token before is one of these
    before "said"                       the next token is one of these
    ending in "ness", "ment"            so the token ends
    of the kind "number"                number, line break, punctuation, capitalised, inside a word
    near "whale", "sea", "boat"         some of these are within sixteen tokens
    in scripture                        what is said there reads like this register
    the word "king" in scripture        both
    ... or else ...                     up to three of these, of which any will do

Naming, on training text.  For every kind the words are added one by one, those first whose places the feature fires
on most surely, as long as F1 against the feature's places rises (weighted by activation, and once more by its square:
a name is of what it fires on most); registers likewise, by the share of activation they hold.  Of all these names and
their combinations that one is kept which best tells 32 windows where the feature fires from 32 where it does not, in
two rounds; then another part is added as long as that helps.  What is written down as a label is the first part if it
is right in three of four by itself, else the whole if that is; what scoring measures is every feature's best name,
however poor.

Scoring, on held-out text, by a reader who knows nothing but the name: the class Reader, made from the sentence alone
(and knowing the language: how common a word is, and by which words a register is told, from training text).  It is
shown five snippets of 32 tokens in which the feature fires, one from each fifth of the range of its values, which is how
Anthropic and Neuronpedia show examples (in number, nearly all activations are weak), and five in which it does not, in a
seeded order, and picks the five that fit the name best (chance when they fit alike).  Out of ten it gets 2 x right
picks; guessing gives 5 on average.  --score does this for so many live features drawn at random (seed 4), eight times
each, and prints the distribution; nothing about them was chosen.  (The procedure was tuned on features drawn with seed
5.)

Writes Neuronpedia's layout under OUT/<model>/<source>/ for every SAE: activity.py's features and explanations with
typeName "lapidary_auto" (--only: for the scored one alone, naming takes minutes), and for the scored one its
activations too; scores.json, and examples.md: the page of examples of the scored features.
"""
import argparse
import json
import pathlib
import re

import numpy as np
import sentencepiece as spm
import torch

import activity as act
import data
import export
import sae

WORDS, NEAR, SNIPPET = 6, 16, 32
NAMING, ROUNDS, MIN_FIRES, GOOD = 32, 8, 20, 0.75
PARTS, OR = 3, " or else "
TRIES = 2000        # windows looked at for those in which a feature is silent
# kind: (which view of a token, how many places further on it is looked for)
KINDS = {"the word": ("word", 0), "after": ("word", -1), "before": ("word", 1), "ending in": ("ending", 0),
         "of the kind": ("shape", 0)}


def word(piece):
    """A piece as a reader sees it: no space, lower case."""
    return piece.replace("\u2581", "").strip().lower()


def ending(piece):
    w = word(piece)
    return w[-3:] if re.fullmatch(r"[a-z]{5,}", w) else ""


def shape(piece):
    plain = piece.replace("\u2581", "")
    if "\n" in piece:
        return "line break"
    if plain.isdigit():
        return "number"
    if plain and not any(c.isalnum() for c in plain):
        return "punctuation"
    if plain[:1].isupper():
        return "capitalised"
    return "inside a word" if plain.isalpha() and not piece.startswith("\u2581") else ""


class Language:
    """What a reader knows before any name: how tokens look, and by which words a register is told."""

    def __init__(self, work, pieces):
        self.views, self.names = {}, {}
        for view, of in (("word", word), ("ending", ending), ("shape", shape)):
            words = [of(p) for p in pieces]
            self.names[view] = sorted(set(words))
            number = {w: i for i, w in enumerate(self.names[view])}
            self.views[view] = np.array([number[w] for w in words])
        self.quotable = {v: np.array([bool(n) and '"' not in n for n in names]) for v, names in self.names.items()}
        self.plain = np.array([re.fullmatch(r"[a-z']{3,}", n) is not None for n in self.names["word"]])
        counts = np.stack([np.bincount(data.read(work, "train", r), minlength=len(pieces)) for r in data.MIX]) + 1.0
        self.log_p = np.log(counts / counts.sum(1, keepdims=True))
        self.registers = list(data.MIX)
        often = np.exp(self.log_p).mean(0)
        self.surprise = {v: -np.log(np.maximum(np.bincount(n, often, len(self.names[v])), 1e-9))
                         for v, n in self.views.items()}

    def numbers(self, view, words):
        return {self.names[view].index(w) for w in words if w in self.names[view]}

    def register(self, ids):
        """[registers] how likely each is, from a snippet's tokens."""
        z = self.log_p[:, ids].sum(1)
        z = np.exp(z - z.max())
        return z / z.sum()


class Part:
    """One part of a name; fits a snippet (ids) by the words it asks for, rare ones more than common ones."""

    def __init__(self, name, language):
        self.language = language
        quoted = re.findall(r'"([^"]*)"', name)
        self.kind = next((k for k in [*KINDS, "near"] if name.startswith(k + " ")), None)
        self.view, self.by = KINDS.get(self.kind, ("word", 0))
        self.words = language.numbers(self.view, quoted)
        clause = re.search(r"(?:^| )in ([a-z, ]+)$", re.sub(r'"[^"]*"', '""', name))
        self.registers = [language.registers.index(r) for r in clause[1].split(", ")] if clause else []

    def fit(self, ids):
        likely = self.language.register(ids)[self.registers].sum() if self.registers else 1.0
        if self.kind is None:
            return likely
        looked_at = ids[self.by:] if self.by > 0 else ids[:len(ids) + self.by]      # the neighbour must be there too
        seen = self.language.views[self.view][looked_at].tolist()
        hits = [self.language.surprise[self.view][w] for w in (set(seen) if self.kind == "near" else seen)
                if w in self.words]
        if not hits:
            return 0.0
        return likely * (sum(hits) if self.kind == "near" else max(hits) + 0.1 * sum(hits))


class Reader:
    """Fits a snippet to a whole name, knowing only the name."""

    def __init__(self, name, language):
        self.parts = [Part(part, language) for part in name.split(OR)]

    def fit(self, ids):
        return sum(part.fit(ids) for part in self.parts)


def sentence(kind, words):
    return kind + " " + ", ".join('"' + w + '"' for w in words)


def grow(words_at, weight, base, names, quotable):
    """Words whose places the feature fires on, as long as F1 rises.  words_at: word at each firing place; base [W]: how
    often each word stands anywhere."""
    mass = np.bincount(words_at[words_at >= 0], weight[words_at >= 0], len(names))
    sure = np.where(quotable & (mass > 0), mass / np.maximum(base, 1), 0) * (mass > 0.02 * weight.sum())
    chosen, got, cost, best = [], 0.0, 0.0, 0.0
    for i in np.argsort(-sure)[:40]:
        if sure[i] <= 0 or len(chosen) == WORDS:
            break
        f1 = 2 * (got + mass[i]) / (weight.sum() + cost + base[i])
        if f1 > best:
            chosen, got, cost, best = chosen + [names[i]], got + mass[i], cost + base[i], f1
    return chosen


class Namer:
    def __init__(self, activity, language):
        self.a, self.language = activity, language
        self.at, self.base = {}, {}
        for kind, (view, by) in KINDS.items():
            places = language.views[view][activity.rows]
            moved = np.full_like(places, -1)
            if by < 0:
                moved[:, -by:] = places[:, :by]
            elif by > 0:
                moved[:, :-by] = places[:, by:]
            else:
                moved[:] = places
            self.at[kind] = moved
            n = len(language.names[view])
            self.base[kind] = np.bincount(moved[activity.masks & (moved >= 0)], minlength=n).astype(float)
        self.words = language.views["word"][activity.rows]
        some = np.random.default_rng(0).integers(0, len(activity.rows), 4000)
        present = np.zeros(len(language.names["word"]))
        for window in some:
            present[np.unique(self.words[window, 1:1 + 2 * NEAR])] += 1
        self.log_base = np.log((present + 0.5) / len(some))
        self.of_window = np.array([language.registers.index(r) for r in activity.registers])

    def nearby(self, w, p):
        """Words over-represented within NEAR places of the firing ones."""
        counts = np.zeros(len(self.log_base))
        for window, place in list(zip(w, p))[:400]:
            counts[np.unique(self.words[window, max(1, place - NEAR):place + NEAR])] += 1
        n = min(len(w), 400)
        gain = counts / n * (np.log((counts + 0.5) / n) - self.log_base)
        gain[~self.language.plain] = 0
        return [self.language.names["word"][i] for i in np.argsort(-gain)[:WORDS] if gain[i] > 0.02]

    def registers(self, w, v):
        """The fewest registers that hold four fifths of the activation, if they are at most three."""
        share = np.bincount(self.of_window[w], v, len(self.language.registers)) / v.sum()
        order = np.argsort(-share)
        n = int(np.searchsorted(share[order].cumsum(), 0.8)) + 1
        return [self.language.registers[i] for i in order[:n]] if n <= 3 else []

    def candidates(self, feature):
        w, p, v = self.a.of(feature)
        found = []
        for power in (1, 2):
            for kind, (view, _) in KINDS.items():
                words = grow(self.at[kind][w, p], (v / v.max()) ** power, self.base[kind], self.language.names[view],
                             self.language.quotable[view])
                found += [sentence(kind, words)] if words else []
        found = list(dict.fromkeys(found))
        strong = np.argsort(-v)[:400]
        near = self.nearby(w[strong], p[strong])
        found += [sentence("near", near)] if near else []
        inside = self.registers(w, v)
        return found + ([f + " in " + ", ".join(inside) for f in found] + ["in " + ", ".join(inside)] if inside else [])

    def name(self, feature):
        """[(name, how often it was right in telling windows apart)]: the best of one part, then of two and three as long as
        that is better.  None where the feature fires hardly anywhere or nearly everywhere."""
        if len(self.a.of(feature)[2]) < MIN_FIRES:
            return None
        tests = [picks(self.a, feature, NAMING, round_) for round_ in range(2)]
        if None in tests:
            return None

        def tried(names):
            return sorted(((sum(right(Reader(n, self.language), *t) for t in tests) / (2 * NAMING), n) for n in names),
                          reverse=True)

        single = tried(self.candidates(feature))
        best = single[:1]
        while best and len(best) < PARTS:
            have = best[-1][1]
            more = tried(have + OR + n for _, n in single[:8] if n not in have.split(OR))
            if not more or more[0][0] <= best[-1][0]:
                break
            best.append(more[0])
        return [(n, share) for share, n in best] or None


def picks(a, feature, n, round_):
    """n snippets (ids) where the feature fires, an equal number from each fifth of its values, and n where it does not:
    drawn by (feature, round).  None for a feature that fires nearly everywhere."""
    rng = np.random.default_rng([feature, round_])
    w, p, v = a.of(feature)
    span = max(v.max() - v.min(), 1e-9)
    T, bands = a.rows.shape[1], np.minimum(((v - v.min()) / span * act.BANDS).astype(int), act.BANDS - 1)
    inside = [np.flatnonzero(bands == i * act.BANDS // n) for i in range(n)]
    fires = [int(rng.choice(band)) if len(band) else int(rng.integers(len(v))) for band in inside]
    out = ([], [])
    for i in fires:
        lo = int(np.clip(p[i] - rng.integers(4, SNIPPET - 4), 1, T - SNIPPET))
        out[0].append(a.rows[w[i], lo:lo + SNIPPET])
    order = np.argsort(w, kind="stable")
    sorted_w = w[order]
    for _ in range(TRIES):
        window = int(rng.integers(len(a.rows)))
        lo = int(rng.integers(1, T - SNIPPET))
        first, last = np.searchsorted(sorted_w, np.array([window, window + 1], sorted_w.dtype))
        here = p[order[first:last]]
        if a.masks[window, lo:lo + SNIPPET].all() and not ((here >= lo) & (here < lo + SNIPPET)).any():
            out[1].append(a.rows[window, lo:lo + SNIPPET])
        if len(out[1]) == n:
            return *out, rng
    return None


def right(reader, fires, silent, rng):
    """How many of the n best fitting snippets are among those where it fires."""
    fit = np.array([reader.fit(s) for s in fires + silent]) + rng.random(len(fires) + len(silent)) * 1e-9
    return int((np.argsort(-fit)[:len(fires)] < len(fires)).sum())


def score(name, a, language, feature):
    """Mean of ROUNDS scores out of ten on held-out text, or None where it fires hardly anywhere or nearly everywhere."""
    if len(a.of(feature)[2]) < 5:
        return None
    reader, tests = Reader(name, language), [picks(a, feature, 5, 100 + r) for r in range(ROUNDS)]
    return None if None in tests else float(np.mean([2 * right(reader, *t) for t in tests]))


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


def summary_of(scores):
    marks = [0.0 if s is None else s for s in scores.values()]      # no name, or silent on held-out text: not legible
    return {"features": len(marks), "unscored": sum(s is None for s in scores.values()), "median": float(np.median(marks)),
            "share_at_8": float(np.mean(np.array(marks) >= 8)),
            "distribution": np.histogram(marks, np.arange(0, 10.5, 1))[0].tolist()}


def label_of(names):
    """What is written down of a feature's names: the shortest that is good enough, or None."""
    return next((n for n in names or () if n[1] >= GOOD), None)


def name_all(a, net, scope, site, layer, language, pieces, train, is_scored):
    """Statistics of one SAE, and names of its features; writes its folder."""
    source = sae.source_id(site, layer, scope.b_enc.numel())
    act.write(a.out, a.model_id, source, net if site != "att" else None, scope, train, pieces, is_scored)
    if a.only and not is_scored:
        return None
    namer = Namer(train, language)
    names = {f: namer.name(f) for f in range(scope.b_enc.numel())}
    labels = {f: label_of(n) for f, n in names.items() if label_of(n)}
    act.write_batch(a.out / a.model_id / source / "explanations", [
        {"modelId": a.model_id, "layer": source, "index": str(f), "description": n, "typeName": "lapidary_auto",
         "explanationModelName": "labels.py", "right": round(share, 3)} for f, (n, share) in labels.items()])
    print(f"{source}: {len(labels)} of {scope.b_enc.numel()} features have a label", flush=True)
    return names


def score_some(a, net, scope, train, names, language, pieces):
    held = act.gather(net, {"held": (sae.watched(a.site)[0], a.layer, scope)}, a.work, "held", a.windows)["held"]
    live = [f for f in names if len(train.of(f)[2])]
    chosen = sorted(np.random.default_rng(4).permutation(live)[:a.score].tolist())
    shown = {f: names[f][-1][0] if names[f] else None for f in chosen}
    scores = {f: score(shown[f], held, language, f) if shown[f] else None for f in chosen}
    summary = summary_of(scores)
    (a.out / "scores.json").write_text(json.dumps({"summary": summary, "scores": scores, "names": shown}, indent=1))
    (a.out / "examples.md").write_text(page(train, chosen, shown, scores, pieces))
    print(json.dumps(summary), flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--saes", required=True, type=pathlib.Path)
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base")
    args.add_argument("--model-id", default="lapidary-base")
    args.add_argument("--site", default="res", help="of the SAE whose names are scored")
    args.add_argument("--layer", type=int, default=3)
    args.add_argument("--only", action="store_true", help="name the features of no other SAE")
    args.add_argument("--score", type=int, default=60)
    args.add_argument("--windows", type=int, default=400, help="windows of each register to name from")
    args.add_argument("--threads", type=int, default=2)
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    sp = spm.SentencePieceProcessor(model_file=str(a.work / "tokenizer" / "tokenizer.model"))
    pieces = [sp.id_to_piece(i) for i in range(sp.vocab_size())]
    net, language = export.load(a.work, a.name), Language(a.work, pieces)
    scopes = {key: sae.Scope(path) for key, path in sae.find(a.saes).items()}
    train = act.gather(net, {key: (sae.watched(key[0])[0], key[1], scope) for key, scope in scopes.items()}, a.work,
                       "train", a.windows)
    for key in sorted(scopes, key=lambda k: k != (a.site, a.layer)):        # the scored one first
        is_scored = key == (a.site, a.layer)
        names = name_all(a, net, scopes[key], *key, language, pieces, train[key], is_scored)
        if is_scored:
            score_some(a, net, scopes[key], train[key], names, language, pieces)
        del train[key]


if __name__ == "__main__":
    main()
