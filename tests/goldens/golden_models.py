"""The checkpoints of the goldens: small, random, and different where an engine for Gemma 2 goes wrong unseen."""
import json

import torch
from safetensors.torch import save_file
from transformers import Gemma2ForCausalLM

# d_model, d_ff, heads, kv heads, head_dim, layers, vocabulary; `scale` is the spread of the weights.  What each is for:
CONFIGS = {
    # the shape of the real ones: caps 50/30, query scale = head_dim, BF16, old spelling; shortest prompt = window
    "plain": dict(seed=1, d=32, f=64, H=4, G=2, E=8, L=3, V=160, qpas=8, dtype="bfloat16", old=True, scale=2.6,
                  prompts=[4, 11], gens=[3, 9], edits="all"),
    # one layer, one kv head per head, dims not multiples of 16, another theta, hard caps, F32, new spelling
    "mha": dict(seed=2, d=26, f=38, H=2, G=2, E=10, L=1, V=101, qpas=24, attn_cap=9.0, final_cap=5.0, theta=500.0,
                dtype="float32", scale=2.2, prompts=[5, 13], gens=[4, 12]),
    # four heads on one kv head, F16 in three shards with a redundant lm_head.weight, ten windows long
    "gqa4": dict(seed=3, d=20, f=52, H=4, G=1, E=6, L=5, V=131, qpas=11, attn_cap=7.0, final_cap=12.0, old=True,
                 dtype="float16", shards=3, lm_head=True, scale=1.8, prompts=[4, 40], gens=[2, 39]),
    # q width twice d_model, query scale = d/heads as 27B, BF16 shards, odd window, larger eps
    "wide": dict(seed=4, d=36, f=70, H=6, G=3, E=12, L=3, V=173, qpas=6, attn_cap=15.0, final_cap=8.0, window=5,
                 eps=1e-3, dtype="bfloat16", shards=2, scale=1.5, prompts=[6, 23], gens=[5, 17]),
    # one head, wider than the model; layers that do not alternate; no soft-caps at all
    "nocap": dict(seed=5, d=18, f=34, H=1, G=1, E=22, L=5, V=111, qpas=40, attn_cap=None, final_cap=None, theta=1e6,
                  layer_types="fsssf", dtype="float32", scale=1.0, prompts=[7, 18], gens=[4, 15]),
    # everything saturates: scores and logits sit on their caps; F32, window 3
    "hot": dict(seed=6, d=40, f=48, H=4, G=2, E=14, L=2, V=127, qpas=5, attn_cap=2.0, final_cap=9.0, window=3, old=True,
                dtype="float32", scale=2.0, prompts=[8, 16], gens=[3, 10], edits="few"),
    # positions beyond 200 and a window of 64: rotary angles, and the cache when the window has passed
    "long": dict(seed=7, d=16, f=24, H=2, G=1, E=16, L=2, V=100, qpas=16, window=64, dtype="float32", scale=1.5,
                 prompts=[230], gens=[60, 210],
                 sites=["attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_z", "hook_resid_post", "logits"]),
    # weights that F32, BF16 and F16 all hold exactly: the twins of make_gguf.py must agree to the last bit
    "twin": dict(seed=8, d=32, f=64, H=4, G=2, E=8, L=2, V=270, qpas=8, attn_cap=20.0, final_cap=10.0, dtype="float32",
                 exact_halves=True, scale=2.0, prompts=[12], gens=[9],
                 sites=["hook_resid_post", "unembed.hook_out", "logits"]),
    # rows of 256 for the K-quants of make_gguf.py; exists only as GGUF
    "kquant": dict(seed=9, d=256, f=256, H=4, G=1, E=64, L=2, V=270, qpas=64, attn_cap=30.0, final_cap=15.0,
                   dtype="float32", scale=1.4),
}

DEFAULTS = dict(attn_cap=50.0, final_cap=30.0, theta=10000.0, window=4, eps=1e-6, shards=1, old=False, lm_head=False,
                layer_types=None, exact_halves=False, positions=512, sites=None, edits=None, prompts=[], gens=[])


def settings(name):
    return DEFAULTS | CONFIGS[name]


def config_json(c):
    """As the Hub's files of 2024 (old) or as transformers 5 writes it.  Old files leave the tying to the default."""
    j = {
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "attn_logit_softcapping": c["attn_cap"], "bos_token_id": 2, "eos_token_id": 1,
        "final_logit_softcapping": c["final_cap"], "head_dim": c["E"], "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": c["d"], "initializer_range": 0.02, "intermediate_size": c["f"],
        "max_position_embeddings": c["positions"], "model_type": "gemma2", "num_attention_heads": c["H"],
        "num_hidden_layers": c["L"], "num_key_value_heads": c["G"], "pad_token_id": 0,
        "query_pre_attn_scalar": c["qpas"], "rms_norm_eps": c["eps"], "sliding_window": c["window"], "use_cache": True,
        "vocab_size": c["V"],
    }
    if c["old"]:
        j |= {"cache_implementation": "hybrid", "hidden_act": "gelu_pytorch_tanh", "rope_theta": c["theta"],
              "sliding_window_size": c["window"], "torch_dtype": c["dtype"], "transformers_version": "4.42.0.dev0"}
    else:
        types = c["layer_types"] or "sf" * c["L"]
        j |= {"dtype": c["dtype"], "tie_word_embeddings": True, "use_bidirectional_attention": None,
              "layer_types": [{"s": "sliding_attention", "f": "full_attention"}[t] for t in types[:c["L"]]],
              "rope_parameters": {"rope_theta": c["theta"], "rope_type": "default"}, "transformers_version": "5.0.0"}
    return j


def random_weights(c):
    """Matrices of spread scale/sqrt(columns): the soft-caps bite.  Norm offsets far from zero: 1 + w shows."""
    rng = torch.Generator().manual_seed(1000 + c["seed"])

    def matrix(rows, cols, spread=None):
        return torch.randn(rows, cols, generator=rng) * (spread or c["scale"]) / cols**0.5

    def offset():
        return torch.randn(c["d"], generator=rng) * 0.4 + 0.15

    q, kv = c["H"] * c["E"], c["G"] * c["E"]
    w = {"model.embed_tokens.weight": matrix(c["V"], c["d"], c["scale"] * c["d"]**0.5 * 0.5)}
    for l in range(c["L"]):
        p = f"model.layers.{l}."
        w[p + "self_attn.q_proj.weight"] = matrix(q, c["d"])
        w[p + "self_attn.k_proj.weight"] = matrix(kv, c["d"])
        w[p + "self_attn.v_proj.weight"] = matrix(kv, c["d"])
        w[p + "self_attn.o_proj.weight"] = matrix(c["d"], q)
        w[p + "mlp.gate_proj.weight"] = matrix(c["f"], c["d"])
        w[p + "mlp.up_proj.weight"] = matrix(c["f"], c["d"])
        w[p + "mlp.down_proj.weight"] = matrix(c["d"], c["f"])
        for norm in "input", "post_attention", "pre_feedforward", "post_feedforward":
            w[p + norm + "_layernorm.weight"] = offset()
    w["model.norm.weight"] = offset()
    if c["exact_halves"]:  # 8 bits of mantissa, and no F16 denormals
        w = {k: v.bfloat16().float() for k, v in w.items()}
        w = {k: torch.where(v.abs() < 2**-14, torch.zeros_like(v), v) for k, v in w.items()}
        assert all(torch.equal(v, v.half().float()) for v in w.values())
    dtype = getattr(torch, c["dtype"])
    return {k: v.to(dtype) for k, v in w.items()}


def write_model(folder, c, weights):
    """The checkpoint as the Hub lays it out: one file, or shards and an index."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model*"):
        old.unlink()
    (folder / "config.json").write_text(json.dumps(config_json(c), indent=2) + "\n")
    if c["lm_head"]:
        weights = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    n = c["shards"]
    if n == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, where = sorted(weights), {}
    for i in range(n):
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        shard = {k: weights[k] for k in names[i * len(names) // n:(i + 1) * len(names) // n]}
        where |= {k: file for k in shard}
        save_file(shard, folder / file, metadata={"format": "pt"})
    total = sum(v.numel() * v.element_size() for v in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load(folder):
    """The model as transformers reads it from disk: their reading of config.json is part of the golden."""
    model = Gemma2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for key in "eos_token_id", "cache_implementation":
        setattr(model.generation_config, key, None)
    return model
