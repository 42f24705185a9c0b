#!/usr/bin/env python3
"""Small random SAEs of every architecture, saved and computed by SAELens: saes/NAME/{cfg.json,sae_weights.safetensors}, and
expect.safetensors with the input x [n][d_in], the features f [n][d_sae] and the output y [n][d_out], all float32.

    make_sae_goldens.py            make them
    make_sae_goldens.py --check    compare the committed ones with what SAELens computes now

Sizes are odd (23 numbers in, 70 features: no whole panel of 32), biases are never 0, and about a fifth of the features
fire.  "old_" ones are version 5 configurations, flat, with the names of their time; "scope" is a params.npz read by
SAELens' own Gemma Scope loader.

npz/*.npz are one small SAE in every container NumPy and zip have for it, and some that must be refused: stored,
deflated, zip64 (with the limit set to 16 bytes, so that every record that can be is of the large kind), fortran (the
matrices with the first index running fastest), half, double, lower (w_enc, w_dec, and a scaling_factor of ones);
bigendian, integer, short (threshold lacks an element), scaled (a scaling_factor of twos), crc (one bit of W_enc flipped).
All weights are exact in half precision.
"""
import json
import pathlib
import shutil
import sys
import warnings
import zipfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
import sae_lens  # noqa: E402
import sae_lens.loading.pretrained_sae_loaders as loaders  # noqa: E402
from sae_lens.registry import get_sae_class  # noqa: E402

HOME = pathlib.Path(__file__).resolve().parent / "saes"
D_IN, D_SAE, D_OUT, ROWS = 23, 70, 17, 9
RES = {"hook_name": "blocks.1.hook_resid_post", "model_name": "gemma-2-2b", "prepend_bos": True,
       "neuronpedia_id": "gemma-2-2b/1-gemmascope-res-16k"}
CODER = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out", "model_name": "gemma-2-2b"}
Z = {"hook_name": "blocks.2.attn.hook_z", "model_name": "gemma-2-2b"}
# name: (architecture, settings, metadata)
KINDS = {
    "standard": ("standard", {}, RES),
    "standard_plain": ("standard", {"apply_b_dec_to_input": False}, RES),
    "standard_constant": ("standard", {"normalize_activations": "constant_norm_rescale"}, RES),
    "standard_layer": ("standard", {"normalize_activations": "layer_norm"}, RES),
    "jumprelu": ("jumprelu", {"apply_b_dec_to_input": False}, RES),
    "jumprelu_minus": ("jumprelu", {"normalize_activations": "expected_average_only_in"}, RES),
    "topk": ("topk", {"k": 7}, RES),
    "topk_rescaled": ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True}, RES),
    "gated": ("gated", {}, RES),
    "attention": ("jumprelu", {"apply_b_dec_to_input": False, "reshape_activations": "hook_z"}, Z),
    "transcoder": ("transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}, CODER),
    "jumprelu_transcoder": ("jumprelu_transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}, CODER),
    "skip_transcoder": ("skip_transcoder", {"d_out": D_OUT, "apply_b_dec_to_input": False}, CODER),
}
OLD = {
    "old_standard": {"architecture": "standard", "normalize_activations": False},
    "old_topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}},
    "old_jumprelu": {"architecture": "jumprelu", "apply_b_dec_to_input": False, "normalize_activations": None},
}


def generator(name):
    return torch.Generator().manual_seed(sum(map(ord, name)))


def random_weights(sae, g):
    for name, p in sae.named_parameters():
        scale = {"W_enc": 0.3, "W_dec": 0.4, "W_skip": 0.2}.get(name, 0.25)
        p.data = torch.randn(p.shape, generator=g) * scale
        if name == "threshold":
            p.data = p.data.abs() + 0.6
        if name in ("b_enc", "b_gate"):
            p.data -= 0.8


def inputs(sae, g):
    x = torch.randn(ROWS, D_IN, generator=g) + 0.3
    x[3] = 0                            # a row of zeros
    x[4] *= 40
    return x


def compute(sae, x, is_z):
    with torch.no_grad():
        if is_z:                        # SAELens wants [heads][d_head] there and gives it back so
            x = x[:, None, :]
        f = sae.encode(x)
        y = sae(x)
    return f.reshape(len(x), -1), y.reshape(len(x), -1)


def expect(folder, name):
    sae = sae_lens.SAE.load_from_disk(folder)
    g = generator(name + " x")
    x = inputs(sae, g)
    if sae.cfg.normalize_activations == "constant_norm_rescale":
        x[3] = 0.1                      # SAELens divides by the norm
    f, y = compute(sae, x, sae.cfg.reshape_activations == "hook_z")
    return {"x": x.contiguous(), "f": f.contiguous(), "y": y.contiguous()}


def make_lens(name, architecture, settings, metadata):
    cls, config = get_sae_class(architecture)
    cfg = config.from_dict({"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
                            **settings, "metadata": metadata})
    sae = cls(cfg)
    random_weights(sae, generator(name))
    sae.save_model(HOME / name)


def make_old(name, settings):
    folder, g = HOME / name, generator(name)
    folder.mkdir()
    tensors = {"W_enc": torch.randn(D_IN, D_SAE, generator=g) * .3, "b_enc": torch.randn(D_SAE, generator=g) * .25 - .8,
               "W_dec": torch.randn(D_SAE, D_IN, generator=g) * .4, "b_dec": torch.randn(D_IN, generator=g) * .25}
    if "jumprelu" in name:
        tensors["threshold"] = torch.rand(D_SAE, generator=g) + .6
    if name == "old_standard":
        tensors["scaling_factor"] = torch.ones(D_SAE)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu",
                                                 "hook_point": "blocks.3.hook_resid_post", "hook_point_layer": 3,
                                                 "hook_name": "blocks.3.hook_resid_post", "model_name": "gemma-2b",
                                                 **settings}))


def make_scope():
    folder = HOME / "gemma-scope-2b-pt-res" / "layer_20" / "width_70" / "average_l0_12"
    folder.mkdir(parents=True)
    g = generator("scope")
    w = {"W_enc": torch.randn(D_IN, D_SAE, generator=g) * .3, "W_dec": torch.randn(D_SAE, D_IN, generator=g),
         "b_enc": torch.randn(D_SAE, generator=g) * .25 - .8, "b_dec": torch.randn(D_IN, generator=g) * .25,
         "threshold": torch.rand(D_SAE, generator=g) + .6}
    w["W_dec"] /= w["W_dec"].norm(dim=1, keepdim=True)
    np.savez(folder / "params.npz", **{n: t.numpy() for n, t in w.items()})


def expect_scope():
    """params.npz through SAELens' loader of Gemma Scope, told that the file is here."""
    folder = "layer_20/width_70/average_l0_12"
    loaders.hf_hub_download = lambda repo_id, filename, subfolder="", **_: str(HOME / "gemma-scope-2b-pt-res" / subfolder / filename)
    cfg, state, *_ = loaders.gemma_2_sae_huggingface_loader("google/gemma-scope-2b-pt-res", folder, device="cpu",
                                                            cfg_overrides={"d_in": D_IN, "d_sae": D_SAE})
    cfg = loaders.handle_config_defaulting(cfg)
    cls, config = get_sae_class(cfg["architecture"])
    sae = cls(config.from_dict(cfg))
    sae.load_state_dict(state)
    x = inputs(sae, generator("scope x"))
    f, y = compute(sae, x, False)
    return {"x": x.contiguous(), "f": f.contiguous(), "y": y.contiguous()}


def make_npz():
    folder, g = HOME / "npz", generator("npz")
    folder.mkdir()
    w = {"W_enc": torch.randn(5, 40, generator=g), "W_dec": torch.randn(40, 5, generator=g),
         "b_enc": torch.randn(40, generator=g), "b_dec": torch.randn(5, generator=g), "threshold": torch.rand(40, generator=g)}
    w = {n: t.half().float().numpy() for n, t in w.items()}
    np.savez(folder / "stored.npz", **w)
    np.savez_compressed(folder / "deflated.npz", **w)
    limits = zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = 16, 1
    np.savez(folder / "zip64.npz", **w)
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limits
    np.savez(folder / "fortran.npz", **{n: np.asfortranarray(a) for n, a in w.items()})
    np.savez(folder / "half.npz", **{n: a.astype("<f2") for n, a in w.items()})
    np.savez(folder / "double.npz", **{n: a.astype("<f8") for n, a in w.items()})
    ones = np.ones(40, np.float32)
    lower = {n.replace("W_", "w_"): a for n, a in w.items()}
    np.savez(folder / "lower.npz", **lower, scaling_factor=ones)
    np.savez(folder / "bigendian.npz", **{n: a.astype(">f4") for n, a in w.items()})
    np.savez(folder / "integer.npz", **{n: a.astype("<i4") for n, a in w.items()})
    np.savez(folder / "short.npz", **{**w, "threshold": w["threshold"][:-1]})
    np.savez(folder / "scaled.npz", **w, scaling_factor=2 * ones)
    raw = bytearray((folder / "stored.npz").read_bytes())
    raw[raw.index(w["W_enc"].tobytes()) + 100] ^= 1
    (folder / "crc.npz").write_bytes(raw)


def all_expected():
    found = {n: expect(HOME / n, n) for n in [*KINDS, *OLD]}
    found["scope"] = expect_scope()
    return {f"{name}.{part}": t for name, parts in found.items() for part, t in parts.items()}


def main():
    if "--check" in sys.argv:
        want, got = load_file(HOME / "expect.safetensors"), all_expected()
        if set(want) != set(got):
            raise SystemExit("expect.safetensors holds other SAEs")
        for name, t in got.items():
            far = float((t - want[name]).norm() / (want[name].norm() + 1e-9))
            if far > 1e-6:
                raise SystemExit(f"{name}: SAELens {sae_lens.__version__} is {far:.1e} from the committed golden")
        print(f"{len(got)} tensors as SAELens {sae_lens.__version__} computes them")
        return
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    for name, parts in KINDS.items():
        make_lens(name, *parts)
    for name, settings in OLD.items():
        make_old(name, settings)
    make_scope()
    make_npz()
    tensors = all_expected()
    for name, t in tensors.items():
        if name.endswith(".f"):
            print(f"{name[:-2]:22s} L0 {float((t > 0).sum(1).float().mean()):5.1f}")
    save_file(tensors, HOME / "expect.safetensors")


if __name__ == "__main__":
    main()
