"""`lapidary attribute` against its formula (sae/attribute.h) in float64, on tensors that transformers computed.

    python check_attribute.py PATH_OF_lapidary PATH_OF_data

The embedded base model is run by transformers (eager, float32), the SAEs are read and encoded by SAELens; nothing of the
program's own but its answer is used.  Every SAE that is shipped, several positions, with and without a contrast.

Tolerance: 1e-5 of the largest share of the SAE there, its bias, error and site among them; the two runs differ by float32
noise.  A feature on the edge of its threshold may be on one side only.
"""
import json
import pathlib
import sys

import numpy as np
import sentencepiece as spm
import torch

from check_embedded import read_model, read_sae, run, sites

TEXT = "And the LORD said unto Moses, Behold, the whale swam past the ship in the sea, and the king was not pleased with the"
TOL = 1e-5


def divisors(model, ids):
    """sqrt(mean x^2 + eps) of what the final norm and those behind attention read: [n], {layer: [n]}; and the logits."""
    found, handles = {}, []

    def keep(key):
        def hook(norm, args, _out):
            found[key] = torch.sqrt(args[0][0].double().pow(2).mean(-1) + norm.eps).numpy()
        return hook

    handles.append(model.model.norm.register_forward_hook(keep("final")))
    for i, layer in enumerate(model.model.layers):
        handles.append(layer.post_attention_layernorm.register_forward_hook(keep(i)))
    handles.append(model.model.norm.register_forward_hook(lambda _m, _a, o: found.__setitem__("last", o[0].double())))
    with torch.no_grad():
        capped = model(torch.tensor([ids])).logits[0].double().numpy()
    for h in handles:
        h.remove()
    raw = (found.pop("last") @ model.model.embed_tokens.weight.double().T).detach().numpy()
    return found, raw, capped


def statement(model, found, seen, path, at, target, contrast):
    """Shares by feature [d_sae], and (bias, error, site)."""
    site, layer = path.parts[-5], int(path.parts[-4].split("_")[1])
    table = model.model.embed_tokens.weight.detach().double().numpy()
    u = (1 + model.model.norm.weight.detach().double().numpy()) * (table[target] - (table[contrast] if contrast else 0))
    if site == "att":
        block = model.model.layers[layer]
        gain = 1 + block.post_attention_layernorm.weight.detach().double().numpy()
        u = (gain * u / found[layer][at]) @ block.self_attn.o_proj.weight.detach().double().numpy()
    u = u / found["final"][at]
    x, y = seen[site, layer], seen["mlp" if site == "transcoder" else site, layer][at].double().numpy()
    sae = read_sae(path, np.load(path)["b_enc"].size, x.shape[1])
    with torch.no_grad():
        f = sae.encode(x)[at].double().numpy()
        decoder, bias = sae.W_dec.double().numpy(), sae.b_dec.double().numpy()
    return f * (decoder @ u), (bias @ u, (y - f @ decoder - bias) @ u, y @ u)


def check(program, model, seen, found, raw, capped, paths, ids, at, target, contrast):
    words = ["attribute", "--json", "--top", 0, "--tokens", ",".join(map(str, ids)), "--at", at, "--target", target]
    words += ["--contrast", contrast] if contrast else []
    for path in paths:
        words += ["-S", path]
    got = json.loads(run(program, *words))
    assert (got["pos"], got["id"], got["target"]["id"]) == (at, ids[at], target)
    assert abs(got["final_rms"] / found["final"][at] - 1) < 1e-5
    for token in ("target", "contrast") if contrast else ("target",):
        t = got[token]
        assert abs(t["logit_raw"] - raw[at, t["id"]]) < 1e-3 and abs(t["logit"] - capped[at, t["id"]]) < 1e-3, (t, at)
    worst = edge = 0
    for path, s in zip(paths, got["saes"]):
        shares, parts = statement(model, found, seen, path, at, target, contrast)
        mine = np.zeros_like(shares)
        for f in got["features"]:
            if f["sae"] == s["sae"]:
                mine[f["index"]] = f["logit"]
        size = max(np.abs(shares).max(), *map(abs, parts))
        one_side = (mine != 0) != (shares != 0)
        edge += int(one_side.sum())
        assert s["active"] == np.count_nonzero(mine) and one_side.sum() <= 1, (path, at)
        far = np.abs(mine - shares)[~one_side].max() / size
        if not one_side.any():
            sums = [s["features_logit"], s["bias_logit"], s["error_logit"], s["site_logit"]]
            far = max(far, np.abs(np.subtract(sums, [shares.sum(), *parts])).max() / (size + np.abs(shares).sum()))
        assert far < TOL, (path, at, far)
        worst = max(worst, far)
    return worst, len(got["features"]), edge


def main():
    program, data = sys.argv[1], pathlib.Path(sys.argv[2])
    sp = spm.SentencePieceProcessor(model_file=str(data / "base" / "tokenizer.model"))
    ids = [2] + sp.encode(TEXT)
    model = read_model(data / "base")
    seen = sites(model, ids)
    found, raw, capped = divisors(model, ids)
    paths = sorted((data / "saes").glob("*/layer_*/width_*/average_l0_*/params.npz"))
    assert len(paths) == 9, paths
    for at in (1, 7, len(ids) // 2, len(ids) - 1):
        best = int(raw[at].argmax())
        for target, contrast in ((best, None), (best, 1000), (500, 2000)):
            worst, n, edge = check(program, model, seen, found, raw, capped, paths, ids, at, target, contrast)
            print(f"position {at:2d}, target {target:4d}, contrast {contrast}: {n} features of {len(paths)} SAEs, worst share "
                  f"{worst:.1e} of the largest, {edge} on one side only")


main()
