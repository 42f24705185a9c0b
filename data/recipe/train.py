#!/usr/bin/env python3
"""Train the base model, in as many sittings as it takes.

    train.py --work WORK [--minutes 60] [--steps 2700] [--threads 2] [--pause FILE] [--no-compile]

Each call goes on where the last one stopped (run.py): weights, optimizer and the order of the data are those of an
uninterrupted run.  A step is 8192 tokens.  The learning rate warms up over 100 steps, stays, and falls in a straight
line to nothing over the last 40 % of --steps; so --steps may still be changed (a longer plan, or a shorter one when
time is short) as long as the fall has not begun.  The first 85 % read windows of 256 tokens, which is cheaper; the
rest 512, the model's whole context, in which the sliding window of 128 matters.

Every 500 steps the held-out loss of each register is measured on a fixed sample; --evaluate measures it on all of the
held-out text, in float32, and writes WORK/<name>/held.json.  export.py writes the Hugging Face folder.

bfloat16, threads and compiled code do not repeat bit for bit; the seeds fix everything else.
"""
import argparse
import json
import pathlib
import time
from dataclasses import asdict, replace

import numpy as np
import sentencepiece as spm
import torch

import data
import model as gemma
from optimizer import Optimizer
from run import Run

SHAPES = {
    "base": gemma.Shape(),
    "tiny": gemma.Shape(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                        num_key_value_heads=1, head_dim=16,
                        query_pre_attn_scalar=16, sliding_window=16, max_position_embeddings=64),
}
TOKENS_A_STEP = 8192
MICRO = 4096                # tokens that go through at once
WARM_UP, FALL, LONG = 100, 0.4, 0.15
EVALUATE_EVERY, REPORT_EVERY = 500, 20


def scale(step, steps):
    """The learning rate's share of its full value."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (FALL * steps))


def length(step, steps, shape):
    """Tokens a window."""
    return shape.max_position_embeddings // (1 if step >= (1 - LONG) * steps else 2)


@torch.no_grad()
def held_loss(model, work, register, T, at_most=None):
    """Mean loss and number of targets on held-out text."""
    rows, masks = data.held_windows(work, register, T, at_most)
    total, n = 0.0, 0
    for at in range(0, len(rows), 16):
        ids, mask = torch.from_numpy(rows[at:at + 16]), torch.from_numpy(masks[at:at + 16])
        k = int(mask.sum())
        if len(ids) < 16:           # one shape only: another would be compiled anew
            more = 16 - len(ids)
            ids = torch.cat((ids, ids[:1].expand(more, -1)))
            mask = torch.cat((mask, torch.zeros(more, T, dtype=torch.bool)))
        total += float(gemma.capped_loss(model, ids, mask)) * k
        n += k
    return total / n, n


def new_model(shape, seed, dtype):
    torch.manual_seed(seed)
    return gemma.Gemma2(shape, dtype)


def evaluate(run, shape, work):
    """Every held-out token, in float32; one JSON file."""
    model = new_model(shape, 0, torch.float32)
    state = run.load()
    model.load_state_dict(state["model"])
    table = {}
    for register in data.MIX:
        loss, n = held_loss(model, work, register, shape.max_position_embeddings)
        table[register] = {"nats": round(loss, 4), "tokens": n}
        print(f"{register:11s}{loss:8.4f} nats a token, {n} tokens", flush=True)
    (run.folder / "held.json").write_text(json.dumps({"step": state["step"], "registers": table}, indent=1))


def train(run, shape, a):
    net = new_model(shape, a.seed, torch.bfloat16)
    optimizer = Optimizer(net)
    batches = data.Batches(a.work, a.seed)
    step, seen, state = 0, 0, run.load()
    if state:
        net.load_state_dict(state["model"])
        optimizer.restore(state["optimizer"])
        batches.restore(state["data"])
        step, seen = state["step"], state["seen"]
    if not a.no_compile:
        gemma.compile_blocks(net)

    def save():
        run.save({"model": net.state_dict(), "optimizer": optimizer.state(), "data": batches.state(), "step": step,
                  "seen": seen,
                  "steps": a.steps, "shape": asdict(shape), "seed": a.seed})

    recent, began, n = None, time.monotonic(), 0
    while step < min(a.steps, a.stop_at or a.steps) and run.go_on(save):
        T = length(step, a.steps, shape)
        rows = batches.batch(TOKENS_A_STEP // T, T)
        loss = 0.0
        for part in np.array_split(rows, TOKENS_A_STEP // MICRO):
            part = gemma.capped_loss(net, torch.from_numpy(part)) * (MICRO / TOKENS_A_STEP)
            part.backward()
            loss += float(part.detach())
        optimizer.step(scale(step, a.steps))
        step, seen, n = step + 1, seen + rows.shape[0] * T, n + rows.shape[0] * T
        recent = loss if recent is None else 0.98 * recent + 0.02 * loss
        if step % REPORT_EVERY == 0 or step in (1, a.steps):
            run.log(step=step, tokens=seen, loss=loss, recent=recent, scale=scale(step, a.steps),
                    tokens_a_second=n / (time.monotonic() - began))
        if step % EVALUATE_EVERY == 0:
            held = {r: round(held_loss(net, a.work, r, shape.max_position_embeddings // 2, 16)[0], 3) for r in data.MIX}
            run.log(step=step, tokens=seen, held=held, natural=float(np.mean([held[r] for r in data.NATURAL])))
        if run.wants_saving():
            save()
    save()
    run.log(stopped=True, step=step, of=a.steps, tokens=seen)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base", help="the run's folder in WORK")
    args.add_argument("--shape", default="base", choices=sorted(SHAPES))
    args.add_argument("--steps", type=int, default=2700, help="length of the whole plan, not of this sitting")
    args.add_argument("--minutes", type=float, help="stop after so many, to go on another time")
    args.add_argument("--stop-at", type=int, help="stop at this step, to go on another time")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--pause", help="sleep while this file exists")
    args.add_argument("--no-compile", action="store_true", help="no C++ compiler here: a third of the speed")
    args.add_argument("--evaluate", action="store_true",
                      help="measure the held-out loss of the checkpoint, train nothing")
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    run = Run(a.work, a.name, a.minutes, a.pause)
    pieces = spm.SentencePieceProcessor(model_file=str(a.work / "tokenizer" / "tokenizer.model")).vocab_size()
    shape = replace(SHAPES[a.shape], vocab_size=pieces)
    if a.evaluate:
        evaluate(run, shape, a.work)
    else:
        train(run, shape, a)


if __name__ == "__main__":
    main()
