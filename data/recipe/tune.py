"""What chat.py, draft.py and shield.py share: a training loop over batches they make up, and how to read its parts.

A batch is (ids [n][T + 1], weights [n][T]); the loss is the mean over weighted targets.  The loop resumes as train.py
does (run.py): every batch is drawn from a generator seeded by (seed, step), so nothing but the step need be saved.
The learning rate warms up over 50 steps and falls in a straight line to nothing.
"""
import argparse
import pathlib
import time
from dataclasses import asdict

import torch

import export
import model as gemma
from optimizer import Optimizer
from run import Run

WARM_UP = 50


def arguments(doc, steps, name):
    args = argparse.ArgumentParser(description=doc.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--name", default=name, help="the run's folder in WORK")
    args.add_argument("--base", default="base", help="the run to begin from")
    args.add_argument("--steps", type=int, default=steps)
    args.add_argument("--minutes", type=float, help="stop after so many, to go on another time")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--pause", help="sleep while this file exists")
    args.add_argument("--no-compile", action="store_true")
    args.add_argument("--evaluate", action="store_true", help="measure the checkpoint, train nothing")
    return args


def base_of(a, dtype=torch.float32):
    """The model of the run named by --base."""
    net = export.load(a.work, a.base)
    net.dtype = dtype
    return net


def tune(net, a, draw, lr, micro=16, teacher=None):
    """Train net on draw(step) for a.steps.  micro rows go through at once.  True when all steps are done."""
    run = Run(a.work, a.name, a.minutes, a.pause)
    optimizer, step, state = Optimizer(net, lr), 0, run.load()
    if state:
        net.load_state_dict(state["model"])
        optimizer.restore(state["optimizer"])
        step = state["step"]
    if not a.no_compile:
        gemma.compile_blocks(net)
        if teacher is not None:
            gemma.compile_blocks(teacher)

    def save():
        run.save({"model": net.state_dict(), "optimizer": optimizer.state(), "step": step, "steps": a.steps,
                  "shape": asdict(net.shape), "seed": a.seed})

    recent, began, first = None, time.monotonic(), step
    while step < a.steps and run.go_on(save):
        ids, weights = draw(step)
        total, loss = weights.sum(), 0.0
        for at in range(0, len(ids), micro):
            x, w = ids[at:at + micro], weights[at:at + micro]
            part = gemma.capped_loss(net, x, w, teacher) * float(w.sum() / total)
            part.backward()
            loss += float(part.detach())
        optimizer.step(min(1.0, (step + 1) / WARM_UP, (a.steps - step) / (0.9 * a.steps)))
        step += 1
        recent = loss if recent is None else 0.95 * recent + 0.05 * loss
        if step % 20 == 0:
            run.log(step=step, loss=loss, recent=recent, seconds_a_step=(time.monotonic() - began) / (step - first))
        if run.wants_saving():
            save()
    save()
    run.log(stopped=True, step=step, of=a.steps)
    return step >= a.steps


@torch.no_grad()
def generate(net, ids, n, stop=(1, 107), temperature=0.0, seed=0):
    """n tokens after ids, the whole text through the model each time: for looking, not for speed."""
    ids, g = list(ids), torch.Generator().manual_seed(seed)
    start = len(ids)
    for _ in range(n):
        z = net(torch.tensor([ids[-net.shape.max_position_embeddings:]]))[0, -1]
        t = int(z.argmax()) if temperature <= 0 else int(torch.multinomial(torch.softmax(z / temperature, -1), 1,
                                                                           generator=g))
        if t in stop:
            break
        ids.append(t)
    return ids[start:]
