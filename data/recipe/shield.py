#!/usr/bin/env python3
"""Tune the base model to answer ShieldGemma's question, Yes or No: the shield model.

    shield.py --work WORK [--steps 250] [--evaluate]

A row is <bos>, ShieldGemma's prompt about one request (policies.py) and the answer; only the answer counts.  The
official use is one pass and the two logits of the last place, p = e^Yes / (e^Yes + e^No), so that is what is measured.

--evaluate draws from scenes that were never trained on, and beside them from the trained ones: AUC, and precision and
recall at p > 0.5, policy by policy.  It also asks the base model the same: what was there before tuning.
"""
import json
import random

import numpy as np
import sentencepiece as spm
import torch

import data
import export
import policies
import tune

ROWS, ROUND = 32, 64         # rows are as long as the longest prompt, rounded up


class Rows:
    def __init__(self, work, seed):
        self.sp = spm.SentencePieceProcessor(model_file=str(work / "tokenizer" / "tokenizer.model"))
        self.seed = seed
        self.answers = [self.sp.piece_to_id("No"), self.sp.piece_to_id("Yes")]
        if self.sp.unk_id() in self.answers:
            raise SystemExit("the tokenizer has no piece for Yes or for No")

    def fill(self, examples, n):
        """ids [n][T + 1], weights [n][T] (1 at the answer), and the examples' (violation, policy)."""
        drawn = [examples.draw() for _ in range(n)]
        rows = [[data.BOS] + self.sp.encode(text) for text, _, _ in drawn]
        T = -(-max(map(len, rows)) // ROUND) * ROUND
        ids, weights = np.zeros((n, T + 1), np.int64), np.zeros((n, T), np.float32)
        for r, (row, (_, broken, _)) in enumerate(zip(rows, drawn)):
            ids[r, :len(row)] = row
            ids[r, len(row)] = self.answers[broken]
            weights[r, len(row) - 1] = 1
        return torch.from_numpy(ids), torch.from_numpy(weights), [(broken, policy) for _, broken, policy in drawn]

    def draw(self, step):
        return self.fill(policies.Examples(random.Random(f"shield {self.seed} {step}"), held_out=False), ROWS)[:2]


@torch.no_grad()
def scores(net, rows, held_out, n):
    """p(Yes) of n examples, and their labels."""
    ids, weights, labels = rows.fill(policies.Examples(random.Random("shield measured"), held_out), n)
    p = []
    for at in range(0, n, 16):
        hidden = net.hidden(ids[at:at + 16, :-1])[weights[at:at + 16] > 0]
        p.append(torch.softmax(net.logits(hidden)[:, rows.answers], -1)[:, 1])
    return torch.cat(p).numpy(), labels


def measure(p, y):
    """AUC, accuracy, precision and recall at 0.5, of scores p and truths y."""
    bad, good = p[y], p[~y]
    auc = float("nan")
    if len(bad) and len(good):
        auc = float((bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean())
    said = p > 0.5
    both = int((said & y).sum())
    return {"n": len(y), "auc": auc, "accuracy": float((said == y).mean()), "precision": both / max(1, int(said.sum())),
            "recall": both / max(1, int(y.sum()))}


def evaluate(net, rows, n):
    table = {}
    for held_out in (False, True):
        p, labels = scores(net, rows, held_out, n)
        y, asked = np.array([b for b, _ in labels]), np.array([q for _, q in labels])
        part = {"all": measure(p, y), **{q: measure(p[asked == q], y[asked == q]) for q in policies.POLICIES}}
        table["held out" if held_out else "trained"] = part
        for name, m in part.items():
            print(f"{'held out' if held_out else 'trained':9s}{name:32s} n {m['n']:4d}  AUC {m['auc']:.3f}  "
                  f"accuracy {m['accuracy']:.3f}  precision {m['precision']:.3f}  recall {m['recall']:.3f}", flush=True)
    return table


def main():
    args = tune.arguments(__doc__, 250, "shield")
    args.add_argument("--each", type=int, default=800, help="examples to measure, trained and held out")
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    rows = Rows(a.work, a.seed)
    if a.evaluate:
        print("before tuning")
        table = {"base": evaluate(tune.base_of(a), rows, a.each)}
        print("after")
        table["shield"] = evaluate(export.load(a.work, a.name), rows, a.each)
        (a.work / a.name / "held.json").write_text(json.dumps(table, indent=1))
    else:
        tune.tune(tune.base_of(a, torch.bfloat16), a, rows.draw, lr=0.1, micro=16)


if __name__ == "__main__":
    main()
