"""Where the features of an SAE fire: sparse activations over windows of text, and what the views show of them.

`Activity` holds, for windows [n][T] of tokens (place 0 is <bos>, never counted), every (window, place, feature, value)
with value > 0, sorted by feature.  Two are made of each SAE: one on training text, from which names and top examples
are taken, one on held-out text, on which names are scored (labels.py).

`write` lays the statistics out as Neuronpedia's bulk export does, gzip'd JSON lines under <model>/<source>/: features
(largest activation, share of tokens, the tokens it makes more and less likely by W_dec W_U) and activations (examples:
the strongest of different documents, then some from each fifth of the range of values).
"""
import gzip
import json

import numpy as np
import torch

import data

T = 96
TOP, PER_BAND, BANDS = 10, 2, 5
AROUND = 16             # tokens of an example on either side


class Activity:
    def __init__(self, rows, masks, registers, triples):
        self.rows, self.masks, self.registers = rows, masks, registers
        self.window, self.place, self.feature, self.value = triples
        self.tokens = int(masks.sum())
        n = int(self.feature[-1]) + 1 if len(self.feature) else 0
        self.starts = np.append(np.searchsorted(self.feature, np.arange(n, dtype=self.feature.dtype)), len(self.feature))

    def of(self, feature):
        """(windows, places, values) of one feature."""
        a, b = (int(self.starts[min(f, len(self.starts) - 1)]) for f in (feature, feature + 1))
        return self.window[a:b], self.place[a:b], self.value[a:b]


def windows(work, part, per_register, seed):
    """ids [n][T], masks of the places that count, and each window's register."""
    rng, rows, masks, registers = np.random.default_rng(seed), [], [], []
    for register in data.MIX:
        if part == "held":
            r, m = data.held_windows(work, register, T - 1)
        else:
            tokens = data.read(work, "train", register)
            at = rng.integers(1, len(tokens) - T, per_register * 2)
            r = np.stack([np.append(data.BOS, tokens[i:i + T - 1]) for i in at]).astype(np.int64)
            m = np.ones((len(r), T - 1), bool)
        pick = np.sort(rng.permutation(len(r))[:per_register])
        rows.append(r[pick])
        masks.append(np.concatenate((np.zeros((len(pick), 1), bool), m[pick]), 1))
        registers += [register] * len(pick)
    rows, masks = np.concatenate(rows), np.concatenate(masks)
    return rows, masks & (rows > 2), np.array(registers)


@torch.no_grad()
def gather(net, wanted, work, part, per_register, seed=5):
    """{key: Activity} of wanted, {key: (site read, layer, scope)}, all in one pass of the model."""
    rows, masks, registers = windows(work, part, per_register, seed)
    found = {key: [] for key in wanted}
    for at in range(0, len(rows), 32):
        seen = {}

        def watch(s, i, t):
            seen[s, i] = t

        net.hidden(torch.from_numpy(rows[at:at + 32]), watch)
        for key, (site, layer, scope) in wanted.items():
            f = scope.encode(seen[site, layer]) * torch.from_numpy(masks[at:at + 32])[:, :, None]
            w, p, j = torch.nonzero(f, as_tuple=True)
            found[key].append((w.numpy().astype(np.int32) + at, p.numpy().astype(np.int16), j.numpy().astype(np.int32),
                               f[w, p, j].numpy()))
    made = {}
    for key, parts in found.items():
        w, p, j, v = (np.concatenate(c) for c in zip(*parts))
        order = np.argsort(j, kind="stable")
        made[key] = Activity(rows, masks, registers, (w[order], p[order], j[order], v[order]))
    return made


def examples(activity, feature):
    """[(window, place)]: the strongest of different windows, then some of each fifth of the range."""
    w, p, v = activity.of(feature)
    chosen, seen = [], set()
    for i in np.argsort(-v):
        if len(chosen) == TOP:
            break
        if w[i] not in seen:
            seen.add(w[i])
            chosen.append(i)
    rng = np.random.default_rng(feature)
    for band in range(BANDS):
        inside = np.flatnonzero((v > v.max() * band / BANDS) & (v <= v.max() * (band + 1) / BANDS)) if len(v) else []
        fresh = [i for i in inside if w[i] not in seen]
        for i in rng.permutation(fresh)[:PER_BAND]:
            seen.add(w[int(i)])
            chosen.append(int(i))
    return [(int(w[i]), int(p[i])) for i in chosen]


def snippet(activity, feature, window, place):
    """The tokens around a place and the feature's values on them."""
    w, p, v = activity.of(feature)
    lo, hi = max(1, place - AROUND), min(activity.rows.shape[1], place + AROUND)
    values = np.zeros(hi - lo)
    for i in np.flatnonzero((w == window) & (p >= lo) & (p < hi)):
        values[p[i] - lo] = v[i]
    return activity.rows[window, lo:hi], values


@torch.no_grad()
def write(out, model_id, source_id, net, scope, activity, pieces, has_examples=True):
    """features/batch-0.jsonl.gz of every live feature, and activations/batch-0.jsonl.gz with their examples.  net None: the
    SAE's decoder does not write to the stream, so there are no logits to show."""
    folder = out / model_id / source_id
    shown = [p.replace("\u2581", " ") for p in pieces]
    lines = {"features": [], "activations": []}
    for feature in range(scope.b_enc.numel()):
        _, _, v = activity.of(feature)
        if not len(v):
            continue
        row = {"modelId": model_id, "layer": source_id, "index": str(feature), "maxActApprox": round(float(v.max()), 4),
               "frac_nonzero": round(len(v) / activity.tokens, 7)}
        if net:
            logits = net.model.embed_tokens.weight @ scope.W_dec[feature]
            up, down = torch.topk(logits, 10), torch.topk(-logits, 10)
            row |= {"pos_str": [shown[i] for i in up.indices], "pos_values": [round(float(x), 4) for x in up.values],
                    "neg_str": [shown[i] for i in down.indices], "neg_values": [round(-float(x), 4) for x in down.values]}
        lines["features"].append(row)
        for window, place in examples(activity, feature) if has_examples else ():
            ids, values = snippet(activity, feature, window, place)
            top = int(values.argmax())
            lines["activations"].append({
                "modelId": model_id, "layer": source_id, "index": str(feature),
                "dataSource": str(activity.registers[window]), "tokens": [shown[i] for i in ids],
                "values": [round(float(x), 3) for x in values], "maxValue": round(float(values[top]), 4),
                "maxValueTokenIndex": top})
    for kind, rows in lines.items():
        if rows:
            write_batch(folder / kind, rows)


def write_batch(folder, rows):
    """One gzip'd file of JSON lines, the same bytes for the same rows."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()
    with open(folder / "batch-0.jsonl.gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
        z.write(text)
