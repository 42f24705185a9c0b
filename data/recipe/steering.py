#!/usr/bin/env python3
"""Find one feature for each steering recipe, write the recipe, and measure what it does.

    steering.py --work WORK --saes FOLDER --labels FOLDER --out FOLDER [--layer 3] [--seeds 60]

A recipe clamps one feature of the residual stream to a multiple of its largest activation at every position but <bos>:

    x' = x + (c - f(x)) W_dec[feature]

Candidates for a register are the features whose activation falls mostly into it and on many different tokens; of the
CANDIDATES best and the STRENGTHS, that pair is kept which moves the register's score most on the choosing seeds.  The
figures reported come from other seeds, which the choice has not seen.

The score of a text is the probability a naive Bayes classifier over tokens gives the register, trained on the
registers' training text (each register equally likely, counts + 1, at most 30 tokens of evidence per text, since its
independence is a fiction that more tokens only exaggerate).  The texts are 40 tokens after each of PROMPTS, T 0.8,
top-k 40; baseline and steered draw with the same random numbers.  Reported: the mean score of both, the difference with
its 95 % interval (bootstrap over the paired texts), and the share of texts whose likeliest register it is.

Writes OUT/<register>.json (a superset of Neuronpedia's steer request) and OUT/effects.json.
"""
import argparse
import json
import pathlib

import numpy as np
import sentencepiece as spm
import torch

import activity as act
import data
import export
import sae

PROMPTS = ("The", "It was", "He said that", "In the morning", "There is", "They")
RECIPES = {"politics": "speeches", "sea": "sea", "scripture": "scripture", "weather": "weather"}
CANDIDATES, STRENGTHS = 5, (1.0, 1.5)
TOKENS, TEMPERATURE, TOP_K, EVIDENCE = 40, 0.8, 40, 30


class Classifier:
    """Which register a text comes from, by its tokens alone."""

    def __init__(self, work, vocab):
        counts = np.stack([np.bincount(data.read(work, "train", r), minlength=vocab) for r in data.MIX]) + 1.0
        counts[:, :3] = 1
        self.log_p = np.log(counts / counts.sum(1, keepdims=True))
        self.names = list(data.MIX)

    def probabilities(self, texts):
        """[n][registers] for texts, lists of ids."""
        z = np.stack([self.log_p[:, t].sum(1) * min(1, EVIDENCE / max(1, len(t))) for t in texts])
        z = np.exp(z - z.max(1, keepdims=True))
        return z / z.sum(1, keepdims=True)


def clamp(scope, feature, value, layer):
    """The edit, as a watcher of the model."""
    encoder, bias, threshold = scope.W_enc[:, feature], scope.b_enc[feature], scope.threshold[feature]

    def watch(site, i, x):
        if (site, i) != ("res", layer):
            return None
        pre = x @ encoder + bias
        f = torch.where(pre > threshold, pre, 0.0)
        f[:, 0] = value                             # <bos> stays as it is
        return x + (value - f)[:, :, None] * scope.W_dec[feature]
    return watch


@torch.no_grad()
def generate(net, prompts, seeds, watch=None):
    """TOKENS ids after each of prompts (lists of ids); text i draws with seeds[i]."""
    out = [None] * len(prompts)
    for n in {len(p) for p in prompts}:             # rows of one length go through together
        which = [i for i, p in enumerate(prompts) if len(p) == n]
        ids = torch.tensor([prompts[i] for i in which])
        noise = torch.stack([torch.rand(TOKENS, generator=torch.Generator().manual_seed(seeds[i])) for i in which])
        for step in range(TOKENS):
            z = net.logits(net.hidden(ids, watch)[:, -1]) / TEMPERATURE
            best, at = z.topk(TOP_K, 1)
            below = torch.softmax(best, 1).cumsum(1) < noise[:, step, None]
            pick = below.sum(1).clamp(max=TOP_K - 1)
            ids = torch.cat((ids, at.gather(1, pick[:, None])), 1)
        for row, i in enumerate(which):
            out[i] = ids[row, n:].tolist()
    return out


def paired(n, first):
    """n prompts and the seeds of their draws."""
    return [i % len(PROMPTS) for i in range(n)], [first + i // len(PROMPTS) for i in range(n)]


def candidates(activity, register, features):
    """Features whose activation is most of all in this register, on many different tokens."""
    inside = activity.registers == register
    scored = []
    for f in range(features):
        w, p, v = activity.of(f)
        if len(v) < 50:
            continue
        share = v[inside[w]].sum() / v.sum()
        different = len(np.unique(activity.rows[w, p][inside[w]]))
        scored.append((share * np.log(1 + different), f))
    return [f for _, f in sorted(scored, reverse=True)[:CANDIDATES]]


def interval(differences, rng, rounds=4000):
    means = differences[rng.integers(0, len(differences), (rounds, len(differences)))].mean(1)
    return [float(x) for x in np.quantile(means, (0.025, 0.975))]


def description(labels, source, feature):
    import gzip
    path = labels / "lapidary-base" / source / "explanations" / "batch-0.jsonl.gz"
    if path.exists():
        for line in gzip.open(path, "rt", encoding="utf-8"):
            row = json.loads(line)
            if row["index"] == str(feature):
                return row["description"]
    return None


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--saes", required=True, type=pathlib.Path)
    args.add_argument("--labels", required=True, type=pathlib.Path, help="to name the features, where they are named")
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base")
    args.add_argument("--layer", type=int, default=3)
    args.add_argument("--seeds", type=int, default=60, help="texts a measurement")
    args.add_argument("--windows", type=int, default=400, help="windows of each register to find features in")
    args.add_argument("--only", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    args.add_argument("--threads", type=int, default=2)
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    net, scope = export.load(a.work, a.name), sae.Scope(sae.find(a.saes)["res", a.layer])
    sp = spm.SentencePieceProcessor(model_file=str(a.work / "tokenizer" / "tokenizer.model"))
    prompts = [[data.BOS] + sp.encode(p) for p in PROMPTS]
    classifier = Classifier(a.work, sp.vocab_size())
    activity = act.gather(net, {"it": ("res", a.layer, scope)}, a.work, "train", a.windows)["it"]
    source = sae.source_id("res", a.layer, scope.b_enc.numel())

    def texts(n, first, watch=None):
        which, seeds = paired(n, first)
        return generate(net, [prompts[i] for i in which], seeds, watch)

    choosing, reporting = texts(a.seeds // 2, 1000), texts(a.seeds, 5000)
    effects = {}
    for name in a.only:
        register = RECIPES[name]
        r = classifier.names.index(register)
        before, tried = classifier.probabilities(choosing)[:, r].mean(), []
        for feature in candidates(activity, register, scope.b_enc.numel()):
            top = float(activity.of(feature)[2].max())
            for strength in STRENGTHS:
                steered = texts(a.seeds // 2, 1000, clamp(scope, feature, strength * top, a.layer))
                # A text of three words again and again scores high and pleases nobody.
                variety = np.mean([len(set(t)) / len(t) for t in steered])
                gain = classifier.probabilities(steered)[:, r].mean() - before
                tried.append((gain * min(1, variety / 0.5), feature, strength, top))
        _, feature, strength, top = max(tried)
        steered = texts(a.seeds, 5000, clamp(scope, feature, strength * top, a.layer))
        p, q = (classifier.probabilities(t) for t in (reporting, steered))
        effects[name] = {
            "register": register, "feature": feature, "strength": strength, "max_act": top, "texts": a.seeds,
            "baseline": float(p[:, r].mean()), "steered": float(q[:, r].mean()),
            "difference": float((q - p)[:, r].mean()),
            "interval": interval((q - p)[:, r], np.random.default_rng(1)),
            "baseline_first": float((p.argmax(1) == r).mean()), "steered_first": float((q.argmax(1) == r).mean()),
            "example": [sp.decode(t) for t in (reporting[0], steered[0])]}
        print(name, json.dumps(effects[name], ensure_ascii=False), flush=True)
        a.out.mkdir(parents=True, exist_ok=True)
        (a.out / f"{name}.json").write_text(json.dumps({
            "format": "lapidary-recipe", "version": 1, "name": name,
            "description": f"Turns whatever is written toward the register \"{register}\" of the training text.",
            "modelId": "lapidary-base",
            "features": [{"modelId": "lapidary-base", "layer": source, "index": feature,
                          "description": description(a.labels, source, feature),
                          "kind": "clamp", "unit": "max_act", "strength": strength, "max_act": round(top, 4)}],
            "scope": {"bos": False, "template": False, "prompt": True, "generated": True}}, indent=2,
            ensure_ascii=False) + "\n")
    (a.out / "effects.json").write_text(json.dumps(effects, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
