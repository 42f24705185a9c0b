#!/usr/bin/env python3
"""Train the draft model: small and quick, to guess what the base model will say.

    draft.py --work WORK [--steps 400] [--evaluate]

For speculative decoding it is not the text that must be matched but the base model's distribution, so that is what the
draft learns: on windows of the mix, its cross-entropy with the base model's whole prediction (distillation).  Two
layers of 96 on the same tokenizer.

--evaluate measures, on held-out text of every register, the probability that a guess drawn from the draft is accepted,
sum over v of min(p(v), q(v)) [1], and how often the two likeliest tokens agree.

[1] Leviathan, Kalman, Matias: Fast inference from transformers via speculative decoding, 2023.
"""
import json

import torch

import data
import export
import model as gemma
import tune

T, ROWS = 256, 32
SMALL = dict(hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)


@torch.no_grad()
def evaluate(base, draft, work):
    table = {}
    for register in data.MIX:
        rows, masks = data.held_windows(work, register, T, 24)
        ids, mask = torch.from_numpy(rows), torch.from_numpy(masks)
        accepted = agreed = 0.0
        for at in range(0, len(ids), 4):
            counts = mask[at:at + 4]
            p, q = (torch.softmax(m(ids[at:at + 4, :-1])[counts], -1) for m in (base, draft))
            accepted += float(torch.minimum(p, q).sum())
            agreed += float((p.argmax(-1) == q.argmax(-1)).sum())
        n = int(mask.sum())
        table[register] = {"accepted": accepted / n, "agreed": agreed / n, "tokens": n}
        print(f"{register:11s} accepted {accepted / n:.3f}  greedy agreement {agreed / n:.3f}", flush=True)
    return table


def main():
    a = tune.arguments(__doc__, 400, "draft").parse_args()
    torch.set_num_threads(a.threads)
    base = tune.base_of(a, torch.bfloat16)
    if a.evaluate:
        base.dtype = torch.float32
        table = evaluate(base, export.load(a.work, a.name), a.work)
        (a.work / a.name / "held.json").write_text(json.dumps(table, indent=1))
        return
    torch.manual_seed(a.seed)
    net = gemma.Gemma2(gemma.Shape(**{**vars(base.shape), **SMALL}), torch.bfloat16)
    every, batches = torch.ones(ROWS, T), data.Batches(a.work, a.seed)

    def draw(step):
        return torch.from_numpy(batches.reseed([a.seed, step]).batch(ROWS, T)), every

    tune.tune(net, a, draw, lr=1.0, teacher=base)


if __name__ == "__main__":
    main()
