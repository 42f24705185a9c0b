"""The embedded models against transformers and their SAEs against SAELens, through the program as a user runs it.

    python check_embedded.py PATH_OF_lapidary PATH_OF_data

Every model is read by transformers itself (eager, float32; the GGUF files through its own GGUF reader, told the one number
such a file cannot hold) and must give the engine's logits on text of several registers, longer than the sliding window.
Every SAE is read by SAELens' Gemma Scope loader and fed the tensor transformers computed at its site, not ours; features
and their values must be those of `lapidary features`.

Tolerances: logits to 2e-5 of a row's norm, as the other goldens.  Activations differ by the float32 noise of two
transformers, up to 1e-4 of the largest; a feature may be on one side only when it is that near to its threshold.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import sae_lens.loading.pretrained_sae_loaders as loaders
import sentencepiece as spm
import torch
from sae_lens.registry import get_sae_class
from transformers import AutoConfig, AutoModelForCausalLM

TEXT = ("Once upon a time there was a little girl who lived by the sea. Fellow citizens of the Senate and of the House of "
        "Representatives: And the LORD said unto Moses, Behold, the whale swam past the ship. lamp (noun): a source of light.\n"
        "Norway\n\nGEOGRAPHY\nLocation: Northern Europe, bordering the North Sea. Miss Elizabeth Bennet was not pleased. ")
TOL = 2e-5


def run(program, *words):
    return subprocess.run([program, *map(str, words), "-q"], check=True, stdout=subprocess.PIPE).stdout


def read_model(path):
    if path.is_dir():
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    config.query_pre_attn_scalar = config.head_dim      # not in the file; llama.cpp takes the head's width too
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, config=config, dtype=torch.float32,
                                                attn_implementation="eager").eval()


def check_model(program, path, ids, scratch):
    model = read_model(path)
    with torch.no_grad():
        want = model(torch.tensor([ids])).logits[0].double().numpy()
    out = scratch / "logits.npy"
    run(program, "trace", "-m", path, "--tokens", ",".join(map(str, ids)), "--sites", "logits", "-o", out)
    got = np.load(out).astype(np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    far = (np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)).max()
    print(f"{path.name:12s} logits of {len(ids)} tokens: worst row {far:.1e}, "
          f"loss {float(torch.nn.functional.cross_entropy(torch.tensor(want[:-1]), torch.tensor(ids[1:]))):.3f}")
    assert far < TOL
    return model


def sites(model, ids):
    """The tensors Gemma Scope's SAEs read, by transformers: {(site, layer): [n][width]}."""
    found, handles = {}, []

    def keep(name, layer, tensor):
        found[name, layer] = tensor.detach()[0]

    for i, layer in enumerate(model.model.layers):
        norm = layer.pre_feedforward_layernorm
        handles += [
            layer.register_forward_hook(lambda m, a, o, i=i: keep("res", i, o[0] if isinstance(o, tuple) else o)),
            layer.post_feedforward_layernorm.register_forward_hook(lambda m, a, o, i=i: keep("mlp", i, o)),
            layer.self_attn.o_proj.register_forward_hook(lambda m, a, o, i=i: keep("att", i, a[0])),
            norm.register_forward_hook(lambda m, a, o, i=i: keep(
                "transcoder", i, a[0] * torch.rsqrt(a[0].pow(2).mean(-1, keepdim=True) + m.eps))),
            norm.register_forward_hook(lambda m, a, o, i=i: keep("mid", i, a[0])),
            norm.register_forward_hook(lambda m, a, o, i=i: keep("normed", i, o))]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for h in handles:
        h.remove()
    return found


def read_sae(path, width, d_in):
    """params.npz through SAELens' own loader of Gemma Scope."""
    loaders.hf_hub_download = lambda repo_id, filename, subfolder="", **_: str(path)
    cfg, state, *_ = loaders.gemma_2_sae_huggingface_loader("google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71",
                                                            device="cpu", cfg_overrides={"d_in": d_in, "d_sae": width})
    cls, config = get_sae_class("jumprelu")
    sae = cls(config.from_dict(loaders.handle_config_defaulting(cfg)))
    sae.load_state_dict(state)
    return sae


def check_sae(program, path, seen, ids):
    site, layer = path.parts[-5], int(path.parts[-4].split("_")[1])
    x = seen[site, layer]
    width = np.load(path)["b_enc"].size
    sae = read_sae(path, width, x.shape[1])
    with torch.no_grad():
        want = sae.encode(x).numpy()
        pre = (x @ sae.W_enc + sae.b_enc).numpy()
    text = run(program, "features", "--json", "--top", 0, "--bos", "-S", path, "--tokens", ",".join(map(str, ids)))
    got = np.zeros_like(want)
    for f in json.loads(text)["features"]:
        got[f["pos"], f["index"]] = f["activation"]
    near = np.abs(pre - sae.threshold.detach().numpy()) < 1e-4 * np.abs(pre).max(1, keepdims=True)
    differ = (got > 0) != (want > 0)
    both = (got > 0) & (want > 0)
    far = (np.abs(got - want)[both] / np.broadcast_to(want.max(1, keepdims=True), want.shape)[both]).max()
    print(f"{site:11s}{layer:2d}  L0 {(want[1:] > 0).sum(1).mean():5.1f}  values within {far:.1e} of the row's largest, "
          f"{int(differ.sum())} of {int((want > 0).sum())} on one side only")
    assert not (differ & ~near).any() and far < 1e-4 and both.sum() > 10 * len(ids) / 2, path


def module_of(model, site, layer):
    """The module whose output (att: input) is the tensor an SAE's output takes the place of."""
    block = model.model.layers[layer]
    return {"res": block, "mlp": block.post_feedforward_layernorm, "transcoder": block.post_feedforward_layernorm,
            "att": block.self_attn.o_proj}[site]


def loss_with(model, ids, site, layer, tensor):
    """Cross-entropy with `tensor` in the activation's place at every position but the first; None: as it is."""
    def change(x):
        return torch.cat((x[:, :1], tensor[None, 1:]), 1)

    def after(_m, _a, o):
        return (change(o[0]), *o[1:]) if isinstance(o, tuple) else change(o)

    handle = None
    if tensor is not None and site == "att":
        handle = module_of(model, site, layer).register_forward_pre_hook(lambda _m, a: (change(a[0]), *a[1:]))
    elif tensor is not None:
        handle = module_of(model, site, layer).register_forward_hook(after)
    with torch.no_grad():
        z = model(torch.tensor([ids])).logits[0].double()
    if handle:
        handle.remove()
    return float(torch.nn.functional.cross_entropy(z[:-1], torch.tensor(ids[1:])))


def check_evaluation(program, path, model, seen, ids, text):
    """`lapidary sae eval` against the definitions, on transformers' tensors."""
    site, layer = path.parts[-5], int(path.parts[-4].split("_")[1])
    x, y = seen[site, layer], seen["mlp" if site == "transcoder" else site, layer]
    sae = read_sae(path, np.load(path)["b_enc"].size, x.shape[1])
    with torch.no_grad():
        f = sae.encode(x)
        made = f @ sae.W_dec + sae.b_dec
    y1, made1 = y[1:].double(), made[1:].double()
    mean = y1.mean(0)
    clean = loss_with(model, ids, site, layer, None)
    want = {"l0": float((f[1:] > 0).sum(1).double().mean()),
            "fvu": float((y1 - made1).pow(2).sum() / (y1 - mean).pow(2).sum()), "loss": clean,
            "cosine": float(torch.nn.functional.cosine_similarity(y1, made1, 1).mean()),
            "delta_loss": loss_with(model, ids, site, layer, made) - clean,
            "mean_ablated": loss_with(model, ids, site, layer, mean.float().expand_as(y)) - clean}
    got = json.loads(run(program, "sae", "eval", path, "-f", text, "--json"))[0]
    assert got["targets"] == len(ids) - 1
    far = {k: abs(got[k] - v) / max(abs(v), 0.01) for k, v in want.items()}
    print(f"{site:11s}{layer:2d}  FVU {got['fvu']:.3f}  delta loss {got['delta_loss']:.3f}  recovered {got['recovered']:.3f}  "
          f"worst of {len(far)} figures {max(far.values()):.1e} off")
    assert max(far.values()) < 2e-3, (far, want, got)      # a feature on the edge of its threshold may differ


def check_rivals(program, path, seen, text):
    """`lapidary sae check`: the neighbour an SAE reconstructs best, and how well."""
    site, layer = path.parts[-5], int(path.parts[-4].split("_")[1])
    sae = read_sae(path, np.load(path)["b_enc"].size, seen[site, layer].shape[1])

    def figures(x, y):
        with torch.no_grad():
            f = sae.encode(x)
            y1, made1 = y[1:].double(), (f @ sae.W_dec + sae.b_dec)[1:].double()
        return (float((y1 - made1).pow(2).sum() / (y1 - y1.mean(0)).pow(2).sum()),
                float((f[1:] > 0).sum(1).double().mean()))

    near = [k for k in (layer - 1, layer + 1) if (site, k) in seen]
    names = {"res": "resid_post", "mlp": "mlp_out", "att": "z"}
    if site == "transcoder":
        out = seen["mlp", layer]
        rivals = {f"mlp_in.{layer} to mlp_out.{layer}": figures(seen["normed", layer], out)}
        rivals |= {f"mlp_normed.{k} to mlp_out.{k}": figures(seen[site, k], seen["mlp", k]) for k in near}
    else:
        rivals = {f"{names[site]}.{k}": figures(seen[site, k], seen[site, k]) for k in near}
    if site == "res":
        rivals |= {f"resid_mid.{k}": figures(seen["mid", k], seen["mid", k])
                   for k in (layer, layer + 1) if ("mid", k) in seen}
    best = min(rivals, key=lambda k: rivals[k][0])
    got = json.loads(run(program, "sae", "check", path, "-f", text, "--json"))[0]
    fvu, l0 = rivals[best]
    print(f"{site:11s}{layer:2d}  its nearest {best}  FVU {fvu:.4f} ({got['rival_fvu']})  L0 {l0:.2f} ({got['rival_l0']})")
    assert got["rival"] == best and got["verdict"] == "ok", (best, got)
    assert abs(got["rival_fvu"] - fvu) < 2e-3 * fvu and abs(got["rival_l0"] - l0) < 2e-3 * l0, (rivals, got)


def check_feature(program, path, model, feature):
    """`lapidary feature`: tokens promoted, with and without the final norm's gain, and neighbours by cosine."""
    site, layer = path.parts[-5], int(path.parts[-4].split("_")[1])
    z = np.load(path)
    decoder = torch.from_numpy(z["W_dec"])
    v = decoder[feature]
    if site == "att":
        v = model.model.layers[layer].self_attn.o_proj.weight.detach() @ v
    table = model.model.embed_tokens.weight.detach()
    near = torch.nn.functional.cosine_similarity(decoder, decoder[feature][None], 1)
    near[feature] = -2
    want = {"promotes": table @ v, "suppresses": -(table @ v), "near": near,
            "promotes_gained": table @ (v * (1 + model.model.norm.weight.detach()))}
    rows = json.loads(run(program, "feature", path, feature, "-k", 5, "--json"))
    for what, scores in want.items():
        best = scores.topk(5)
        got = [(r["id"], r["value"]) for r in rows if r["what"] == what]
        assert [i for i, _ in got] == best.indices.tolist(), (path, what, got, best)
        sign = -1 if what == "suppresses" else 1
        assert np.allclose([sign * v for _, v in got], best.values, rtol=1e-3, atol=1e-5), (path, what, got, best)


def main():
    program, data = sys.argv[1], pathlib.Path(sys.argv[2])
    sp = spm.SentencePieceProcessor(model_file=str(data / "base" / "tokenizer.model"))
    ids = [2] + sp.encode(TEXT * 3)
    assert 200 < len(ids) < 500, len(ids)      # beyond the window of 128, within the context
    with tempfile.TemporaryDirectory() as folder:
        for name in ("draft", "chat.gguf", "shield.gguf", "base"):
            model = check_model(program, data / name, ids, pathlib.Path(folder))
    seen = sites(model, ids)
    paths = sorted((data / "saes").glob("*/layer_*/width_*/average_l0_*/params.npz"))
    assert len(paths) == 9, paths
    for path in paths:
        check_sae(program, path, seen, ids)
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text"
        text.write_text(TEXT * 3)
        for path in paths:
            check_evaluation(program, path, model, seen, ids, text)
            check_rivals(program, path, seen, text)
    for path in paths:
        check_feature(program, path, model, 473)
    print("logit effects and neighbours of feature 473 of each")


if __name__ == "__main__":
    main()
