"""Sampling goldens: processed distributions from Hugging Face's processors and warpers, and from llama.cpp's samplers.

    python make_sampler_goldens.py OUT
    python make_sampler_goldens.py --check OUT    compares with what is there instead of writing

Needs torch, transformers 5, numpy, llama-cpp-python 0.3.36.

OUT is text, one case after another:

    case NAME ORDER vocab temperature top_k top_p min_p repetition presence frequency window n_bias n_tokens n_kept
    bias    id add ...
    tokens  id ...
    logits  [vocab] floats, %.9g
    kept    id p ...

ORDER is hf or llama.  Logits are soft-capped, as Gemma 2's are; some cases are full of ties, but never with a tie across
the edge of the nucleus, where neither library defines which token stays.
"""
import ctypes
import io
import sys

import numpy as np
import torch
from transformers.generation import logits_process as hf

try:
    import llama_cpp as lc
except ImportError:
    print("skipped: this Python has no llama_cpp (tests/oracle-extra-requirements.txt)")
    sys.exit(77)  # CTest's "skipped"


def hugging_face(z, tokens, o):
    ids = torch.tensor([tokens], dtype=torch.long)
    s = torch.tensor(z, dtype=torch.float32)[None]
    if o["bias"]:
        s = hf.SequenceBiasLogitsProcessor([[[i], b] for i, b in o["bias"]])(ids, s)
    if o["repetition"] != 1:
        s = hf.RepetitionPenaltyLogitsProcessor(o["repetition"])(ids, s)
    s = hf.TemperatureLogitsWarper(o["temperature"])(ids, s)
    if o["top_k"]:
        s = hf.TopKLogitsWarper(o["top_k"])(ids, s)
    if o["top_p"] < 1:
        s = hf.TopPLogitsWarper(o["top_p"])(ids, s)
    if o["min_p"]:
        s = hf.MinPLogitsWarper(o["min_p"])(ids, s)
    p = torch.softmax(s[0].double(), -1).numpy()
    return [(i, p[i]) for i in range(len(p)) if s[0, i] > -torch.inf]


def llama_cpp(z, tokens, o):
    chain = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
    if o["bias"]:
        bias = (lc.llama_logit_bias * len(o["bias"]))()
        for b, (i, add) in zip(bias, o["bias"]):
            b.token, b.bias = i, add
        lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_logit_bias(len(z), len(bias), bias))
    lc.llama_sampler_chain_add(
        chain, lc.llama_sampler_init_penalties(len(z), o["window"], o["repetition"], o["frequency"], o["presence"]))
    if o["top_k"]:
        lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_top_k(o["top_k"]))
    if o["top_p"] < 1:
        lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_top_p(o["top_p"], 1))
    if o["min_p"]:
        lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_min_p(o["min_p"], 1))
    lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_temp(o["temperature"]))
    for t in tokens:
        lc.llama_sampler_accept(chain, t)
    data = (lc.llama_token_data * len(z))()
    for i, v in enumerate(z):
        data[i].id, data[i].logit, data[i].p = i, float(v), 0.0
    array = lc.llama_token_data_array(data, len(z), -1, False)
    lc.llama_sampler_apply(chain, ctypes.byref(array))
    left = sorted((array.data[i].id, array.data[i].logit) for i in range(array.size))
    lc.llama_sampler_free(chain)
    e = np.array([l for _, l in left], dtype=np.float64)
    e = np.exp(e - e.max())
    return [(i, p) for (i, _), p in zip(left, e / e.sum())]


def edge_is_a_tie(z, kept):
    """Whether a score just inside the cut equals one outside it."""
    inside = {i for i, _ in kept}
    worst = min(z[i] for i in inside)
    return any(z[i] == worst for i in range(len(z)) if i not in inside)


def main():
    rng = np.random.default_rng(20240627)
    off = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition=1.0, presence=0.0, frequency=0.0, window=0,
               bias=[])
    ban = [(3, -float("inf")), (7, 4.5), (11, -2.25)]
    settings = {
        "hf": [dict(), dict(temperature=0.6), dict(temperature=3.5), dict(top_k=1), dict(top_k=7), dict(top_k=200),
               dict(top_p=0.5), dict(top_p=0.95), dict(top_p=1e-6), dict(min_p=0.05), dict(min_p=0.3),
               dict(repetition=1.3), dict(repetition=0.8, top_k=9), dict(bias=ban, temperature=0.9),
               dict(temperature=1.0, top_k=64, top_p=0.95), dict(temperature=0.7, top_k=20, top_p=0.8, min_p=0.1),
               dict(temperature=1.7, top_k=30, top_p=0.9, min_p=0.02, repetition=1.1, bias=ban)],
        "llama": [dict(window=64), dict(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, window=64),
                  dict(temperature=2.0, top_p=0.7, window=64), dict(temperature=0.5, min_p=0.2, window=64),
                  dict(repetition=1.2, presence=0.7, frequency=0.35, window=64),
                  dict(repetition=1.2, presence=0.7, frequency=0.35, window=6),
                  dict(temperature=1.5, top_k=12, top_p=0.9, min_p=0.02, repetition=1.15, frequency=0.2, window=16,
                       bias=ban)],
    }
    cap = lambda x: (30 * np.tanh(x / 30)).astype(np.float32)
    shapes = {
        "peaked": lambda: cap(rng.normal(0, 3, 96)),
        "flat": lambda: cap(rng.normal(0, 0.5, 131)),
        "ties": lambda: np.round(rng.normal(0, 2, 64) * 2).astype(np.float32) / 2,
    }
    n = 0
    check = sys.argv[1] == "--check"
    with io.StringIO() if check else open(sys.argv[1], "w") as f:
        for order, run in (("hf", hugging_face), ("llama", llama_cpp)):
            for shape, make in shapes.items():
                for k, change in enumerate(settings[order]):
                    o = {**off, **change}
                    while True:
                        z = make()
                        tokens = [int(t) for t in rng.integers(0, 24, 21)]
                        kept = run(z, tokens, o)
                        cuts = o["top_p"] < 1 or (order == "llama" and o["top_k"])
                        if not cuts or not edge_is_a_tie(penalised(z, tokens, o), kept):
                            break
                    f.write("case %s%d %s %d %.9g %d %.9g %.9g %.9g %.9g %.9g %d %d %d %d\n" % (
                        shape, k, order, len(z), o["temperature"], o["top_k"], o["top_p"], o["min_p"], o["repetition"],
                        o["presence"], o["frequency"], o["window"], len(o["bias"]), len(tokens), len(kept)))
                    f.write("bias" + "".join(" %d %.9g" % b for b in o["bias"]) + "\n")
                    f.write("tokens" + "".join(" %d" % t for t in tokens) + "\n")
                    f.write("logits" + "".join(" %.9g" % v for v in z) + "\n")
                    f.write("kept" + "".join(" %d %.12g" % k for k in kept) + "\n")
                    n += 1
        if check:
            with open(sys.argv[2]) as there:
                assert f.getvalue() == there.read(), "the committed file is not what this script makes"
    print(n, "cases")


def penalised(z, tokens, o):
    """The scores the cuts act on, to look for ties at their edge (temperature does not move a tie)."""
    z = np.array(z, dtype=np.float32)
    for i, b in o["bias"]:
        z[i] += np.float32(b)
    seen = tokens[-o["window"]:] if o["window"] else tokens
    for t in set(seen):
        z[t] = z[t] * o["repetition"] if z[t] < 0 else z[t] / o["repetition"]
        z[t] -= seen.count(t) * o["frequency"] + o["presence"]
    return z


if __name__ == "__main__":
    main()
