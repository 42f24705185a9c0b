#!/usr/bin/env python3
"""Train sparse autoencoders on the base model's activations, and write them as Gemma Scope's files.

    sae.py --work WORK --out FOLDER [--sites res att mlp transcoder] [--tokens 1200000] [--features 2048] [--evaluate]

One SAE per site: the residual stream after every layer, and on the middle layer what the MLP adds (after its
post-norm), the heads' outputs before the output matrix, and a transcoder from the MLP's normed input (x / rms, without the gain) to
what the MLP adds.  These are the tensors Gemma Scope reads, and the files have its layout:

    FOLDER/<site>/layer_<L>/width_<W>/average_l0_<N>/params.npz     W_enc W_dec b_enc b_dec threshold, float32, stored

    pre = x W_enc + b_enc      f = pre where pre > threshold, else 0      x^ = f W_dec + b_dec

Trained as BatchTopK [1]: of a batch's activations the k times batch size largest are kept, so L0 is what one asks for
and no sparsity penalty has to be tuned.  Features that have not fired for a while learn from what the others leave.  At
the end the one threshold that gives k on fresh activations is worked out, and the scale of training, the bias before
the encoder and the norms of the decoder's rows are folded in (Gemma Scope's rows are unit vectors, activations in units
of the stream).  <bos> is left out throughout: its activation is huge and alike everywhere.

One pass of the model writes the activations of all of them, as float16 under WORK/activations.  Neither that pass nor a
finished SAE is done again, so the job may be stopped between any two of them.

--evaluate measures all of them on held-out text: L0, FVU (squared error over that of predicting the mean), the rise of
the loss when the reconstruction is put in the activation's place, the share of it that putting the mean there would
cost, features that never fired, features that fire on more than a tenth of all tokens.  Writes FOLDER/metrics.json.

[1] Bussmann, Leask, Nanda: BatchTopK sparse autoencoders, 2024.
"""
import argparse
import json
import pathlib
import time

import numpy as np
import torch

import data
import export
import model as gemma
from run import Run

T = 256
BATCH = 2048
LR = 1e-3
DEAD_AFTER = 400_000        # tokens without firing
TOLD = 64                   # dead features that learn from the rest, per token
SITES = {"res": 20, "mlp": 24, "att": 24, "transcoder": 24}        # site: k


def jobs(net, sites):
    """[(site, layer)] in the order of training."""
    for site in sites:
        for layer in range(net.shape.num_hidden_layers) if site == "res" else [net.shape.num_hidden_layers // 2]:
            yield site, layer


def watched(site):
    """The sites read for an SAE's input and for its target."""
    return ("transcoder_in", "mlp") if site == "transcoder" else (site, site)


@torch.no_grad()
def collect(net, work, wanted, n, seed):
    """Rows of each (site, layer) of wanted on the same windows of the mix: {(site, layer): float16 [n][width]}, kept in
    WORK/activations and read back from there when they were collected before."""
    rows = n // (T - 1) // 16 * 16
    folder = work / "activations"
    folder.mkdir(exist_ok=True)
    paths = {w: folder / f"{w[0]}.{w[1]}.npy" for w in wanted}
    if not all(p.exists() and np.load(p, mmap_mode="r").shape[0] == rows * (T - 1) for p in paths.values()):
        batches, heads = data.Batches(work, [seed, 77]), net.shape.num_attention_heads * net.shape.head_dim
        arrays = {(site, layer): np.lib.format.open_memmap(
            folder / f"{site}.{layer}.part", "w+", np.float16,
            (rows * (T - 1), heads if site == "att" else net.shape.hidden_size)) for site, layer in wanted}
        for at in range(0, rows, 16):
            def watch(s, i, t, at=at):
                if (s, i) in arrays:
                    arrays[s, i][at * (T - 1):(at + 16) * (T - 1)] = t[:, 1:].float().flatten(0, 1).numpy()
            net.hidden(torch.from_numpy(batches.batch(16, T - 1)), watch)
        for (site, layer), path in paths.items():
            arrays[site, layer].flush()
            (folder / f"{site}.{layer}.part").rename(path)
    return {w: np.load(p, mmap_mode="r") for w, p in paths.items()}


def cut_for(pre, k):
    """The value above which k per row are left, from a sample."""
    flat = pre.detach().flatten()
    sample = flat[torch.randint(0, len(flat), (200_000,))]
    return torch.kthvalue(sample, int(len(sample) * (1 - k / pre.shape[1]))).values.clamp(min=1e-6)


class Autoencoder(torch.nn.Module):
    def __init__(self, d_in, d_out, features, mean_in, mean_out):
        super().__init__()
        decoder = torch.nn.functional.normalize(torch.randn(features, d_out), dim=1)
        encoder = decoder.T if d_in == d_out else torch.nn.functional.normalize(torch.randn(d_in, features), dim=0)
        self.W_enc, self.W_dec = torch.nn.Parameter(encoder.clone()), torch.nn.Parameter(decoder)
        self.b_enc = torch.nn.Parameter(torch.zeros(features))
        self.b_dec = torch.nn.Parameter(mean_out.clone())
        self.register_buffer("b_in", mean_in.clone())

    def before(self, x):
        return ((x - self.b_in).bfloat16() @ self.W_enc.bfloat16()).float() + self.b_enc

    def decode(self, f):
        return (f.bfloat16() @ self.W_dec.bfloat16()).float()


def train(x, y, k, features, steps, seed, go_on, log):
    """An SAE from x to y as Gemma Scope's five arrays, or None if told to stop."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def rows(n):
        pick = np.sort(rng.integers(0, len(x), n))
        a = torch.from_numpy(x[pick].astype(np.float32)) * scale_in
        return a, a if y is x else torch.from_numpy(y[pick].astype(np.float32)) * scale_out

    scale_in = scale_out = 1.0
    a, b = rows(50_000)
    scale_in, scale_out = (float((t.shape[1] / t.pow(2).sum(1).mean()).sqrt()) for t in (a, b))
    a, b = a * scale_in, b * scale_out
    variance = float((b - b.mean(0)).pow(2).sum(1).mean())
    net = Autoencoder(a.shape[1], b.shape[1], features, a.mean(0), b.mean(0))
    adam = torch.optim.Adam(net.parameters(), lr=LR, betas=(0.9, 0.999))
    asleep, began = torch.zeros(features), time.monotonic()
    for step in range(steps):
        if not go_on():
            return None
        for group in adam.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / 100, (steps - step) / (0.3 * steps))
        a, b = rows(BATCH)
        with torch.no_grad():           # an eighth of the batch tells where its cut is
            cut = cut_for(net.before(a[:BATCH // 8]), k)
        pre = net.before(a)
        f = torch.where(pre > cut, pre, 0.0)
        left = b - net.decode(f) - net.b_dec
        loss = left.pow(2).sum(1).mean() / variance
        asleep += BATCH
        asleep[(f.detach() > 0).any(0)] = 0
        dead = torch.nonzero(asleep > DEAD_AFTER).squeeze(1)
        if len(dead):
            best, at = torch.relu(pre[:, dead]).topk(min(TOLD, len(dead)), 1)
            g = torch.zeros(BATCH, len(dead)).scatter(1, at, best)
            loss = loss + (left.detach() - g @ net.W_dec[dead]).pow(2).sum(1).mean() / variance / 16
        adam.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():           # rows stay unit vectors: no step along them, then the norm put right
            net.W_dec.grad -= (net.W_dec.grad * net.W_dec).sum(1, keepdim=True) * net.W_dec
            adam.step()
            net.W_dec /= net.W_dec.norm(dim=1, keepdim=True)
        if step % 100 == 99:
            log(step=step + 1, fvu=float(left.detach().pow(2).sum(1).mean()) / variance,
                l0=float((f > 0).sum()) / BATCH, dead=len(dead),
                seconds=time.monotonic() - began)
    with torch.no_grad():
        threshold = float(torch.stack([cut_for(net.before(rows(BATCH)[0]), k) for _ in range(40)]).mean())
        return {"W_enc": net.W_enc * (scale_in / scale_out), "b_enc": (net.b_enc - net.b_in @ net.W_enc) / scale_out,
                "W_dec": net.W_dec.clone(),
                "b_dec": net.b_dec / scale_out, "threshold": torch.full((features,), threshold / scale_out)}


class Scope:
    """An SAE read back from its file, with Gemma Scope's own formula."""

    def __init__(self, path):
        z = np.load(path)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
            setattr(self, name, torch.from_numpy(z[name]))

    def encode(self, x):
        pre = x @ self.W_enc + self.b_enc
        return torch.where(pre > self.threshold, pre, 0.0)

    def decode(self, f):
        return f @ self.W_dec + self.b_dec


def find(out):
    """{(site, layer): path} of the SAEs in a folder."""
    paths = sorted(pathlib.Path(out).glob("*/layer_*/width_*/average_l0_*/params.npz"))
    return {(p.parts[-5], int(p.parts[-4].split("_")[1])): p for p in paths}


def width_name(features):
    return f"{features // 1024}k" if features % 1024 == 0 else str(features)


def source_id(site, layer, features):
    """What Neuronpedia would call it: layer, then the name of the set."""
    return f"{layer}-lapidary-{site}-{width_name(features)}"


def write(out, site, layer, arrays, l0):
    width = width_name(arrays["b_enc"].numel())
    folder = out / site / f"layer_{layer}" / f"width_{width}" / f"average_l0_{round(l0)}"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{n: np.ascontiguousarray(t.numpy(), "<f4") for n, t in arrays.items()})


def held_batches(work, per_register):
    for register in data.MIX:
        rows, masks = data.held_windows(work, register, T, per_register)
        for at in range(0, len(rows), 8):
            yield torch.from_numpy(rows[at:at + 8]), torch.from_numpy(masks[at:at + 8])


@torch.no_grad()
def measure(net, scope, site, layer, work, per_register=6):
    """The figures of one SAE on held-out text, in float32."""
    read, aim = watched(site)
    seen, put = {}, {}

    def watch(s, i, t):
        if i == layer and s in (read, aim):
            seen[s] = t
            if s == aim and put:
                return put["as"](t)

    def loss(ids, mask):
        each = torch.ones(int(mask.sum()))
        return float(gemma.CappedLoss.apply(net.hidden(ids[:, :-1], watch)[mask], net.model.embed_tokens.weight,
                                            ids[:, 1:][mask], each, net.shape.final_logit_softcapping, torch.float32))

    batches, kept = list(held_batches(work, per_register)), []
    for ids, mask in batches:           # the mean first
        net.hidden(ids[:, :-1], watch)
        kept.append(seen[aim][:, 1:][mask[:, 1:]])
    mean = torch.cat(kept).mean(0)
    n = l0 = error = spread = clean = spliced = ablated = targets = 0
    fired = torch.zeros(scope.b_enc.numel())
    for ids, mask in batches:
        put.clear()
        clean += loss(ids, mask)
        f = scope.encode(seen[read])
        made = scope.decode(f)
        counts = mask.clone()
        counts[:, 0] = False            # the place of <bos>
        real = seen[aim][counts]
        n, l0 = n + len(real), l0 + int((f[counts] > 0).sum())
        error += float((real - made[counts]).pow(2).sum())
        spread += float((real - mean).pow(2).sum())
        fired += (f[counts] > 0).sum(0)
        for name in ("spliced", "ablated"):
            other = made if name == "spliced" else mean.expand_as(made)
            put["as"] = lambda t, other=other: torch.cat((t[:, :1], other[:, 1:]), 1)
            cost = loss(ids, mask)
            spliced, ablated = (spliced + cost, ablated) if name == "spliced" else (spliced, ablated + cost)
        targets += int(mask.sum())
    clean, spliced, ablated = clean / targets, spliced / targets, ablated / targets
    return {"l0": l0 / n, "fvu": error / spread, "loss": clean, "delta_loss": spliced - clean,
            "mean_ablated": ablated - clean,
            "recovered": (ablated - spliced) / (ablated - clean), "dead": float((fired == 0).float().mean()),
            "dense": float((fired > 0.1 * n).float().mean()), "tokens": n}


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base")
    args.add_argument("--sites", nargs="*", default=list(SITES), choices=list(SITES))
    args.add_argument("--tokens", type=int, default=1_200_000)
    args.add_argument("--features", type=int, default=2048)
    args.add_argument("--steps", type=int, default=1200)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--pause", help="sleep while this file exists")
    args.add_argument("--minutes", type=float, help="stop after so many, to go on another time")
    args.add_argument("--evaluate", action="store_true", help="measure what is there, train nothing")
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    net = export.load(a.work, a.name)
    run = Run(a.work, "sae", a.minutes, a.pause)
    metrics = {}
    todo = [j for j in jobs(net, a.sites) if a.evaluate or j not in find(a.out)]
    if todo and not a.evaluate:
        rows = collect(net, a.work, sorted({(s, layer) for site, layer in jobs(net, a.sites) for s in watched(site)}),
                       a.tokens, a.seed)
    for site, layer in todo:
        done = find(a.out)
        if a.evaluate:
            if (site, layer) in done:
                metrics[f"{site}.{layer}"] = m = measure(net, Scope(done[site, layer]), site, layer, a.work)
                print(f"{site:11s}{layer:2d}  " + "  ".join(f"{k} {v:.4g}" for k, v in m.items()), flush=True)
            continue
        if not run.go_on():
            break
        read, aim = watched(site)
        x = rows[read, layer]
        y = x if aim == read else rows[aim, layer]
        # Each begins from directions of its own: from the same ones, features of different layers would look alike.
        seed = 1000 * a.seed + 100 * list(SITES).index(site) + layer
        arrays = train(x, y, SITES[site], a.features, a.steps, seed, run.go_on,
                       lambda **w: run.log(site=site, layer=layer, **w))
        if arrays:
            pre = torch.from_numpy(x[-20000:].astype(np.float32)) @ arrays["W_enc"] + arrays["b_enc"]
            write(a.out, site, layer, arrays, float((pre > arrays["threshold"]).sum(1).float().mean()))
    if a.evaluate:
        (a.out / "metrics.json").write_text(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
