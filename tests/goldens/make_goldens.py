"""Makes the golden files of the engine: small random Gemma 2 checkpoints and what Hugging Face transformers computes
with them (Gemma2ForCausalLM, attn_implementation="eager", float32), site by site.

    python tests/goldens/make_goldens.py [--only NAME] [--noise] [--check]

writes tests/goldens/models/NAME/{config.json, model*.safetensors[.index.json], expect.safetensors} in place, then the
GGUF twins (make_gguf.py).  Everything is seeded: the same packages give the same bytes.  --noise also runs each
prompt in float64 and prints, per site, how far transformers' own float32 is from it: the floor under any tolerance.
--check writes nothing: it remakes everything elsewhere and compares.
Needs torch, transformers (5.x), safetensors, gguf, numpy, llama-cpp-python (K-quants only).

expect.safetensors, all F32 (ids too: exact up to 2^24), n the tokens of a prompt, V the vocabulary:

    pP.ids                           [n]           prompt P = 0, 1, ...
    pP.SITE                          [n, ...]      hf_sites.py names the sites; per-head sites are [n, heads, width],
                                                   scores and pattern [n, heads, n] (masked entries 0)
    fast.pP.SITE                     [n, ...]      resid_post of each layer and logits again, weight and input of every
                                                   linear layer rounded to bf16: what fast arithmetic means
    genP.prompt, .ids, .logits       [n] [8] [8,V] greedy generation, and the logits each id was taken from
    edit.prompt                      [n]           the one prompt of all the edits of this file
    edit.value.OP.FROM.SITE          [w] or [1]    an edit active at every position >= FROM, prompt and generated
    edit.ids.OP.FROM.SITE            [8]           greedy ids under it
    edit.logits.OP.FROM.SITE         [n+7, V]      logits of every prompt row and every generated row

OP: add (x + v), set (v), mul (x * v), each with v as wide as a row of the site ([heads * width]) or one number for
all of it; uniform (attention spread evenly over the keys allowed; v unused).  Not every file has every site: `long`
and `twin` keep few.  Generation and edits run on transformers' KV cache, so they also check decode against prompt.
"""
import argparse
import copy
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import make_gguf
from golden_models import CONFIGS, load, random_weights, settings, write_model
from hf_sites import LAYER_SITES, MODEL_SITES, Sites, record

HERE = pathlib.Path(__file__).resolve().parent
N_GENERATED = 8


def check_read(model, c):
    g = model.config
    assert g.rope_parameters["rope_theta"] == c["theta"] and g.query_pre_attn_scalar == c["qpas"]
    assert g.attn_logit_softcapping == c["attn_cap"] and g.final_logit_softcapping == c["final_cap"]
    assert [t[0] for t in g.layer_types] == list((c["layer_types"] or "sf" * c["L"])[:c["L"]])
    assert g.hidden_activation == "gelu_pytorch_tanh" and g.sliding_window == c["window"]


# ---- generation and edits ---------------------------------------------------------------------------------------


def assert_clear(logits):
    """Greedy must not hang on the last bit."""
    top = logits.topk(2).values
    assert top[..., 0].sub(top[..., 1]).min() > 1e-4 * top.abs().max(), "a tie: choose another seed"


def greedy(model, ids, edit=None):
    """Prompt, then one token at a time on transformers' cache: (ids, logits of every row that was computed)."""
    at, generated, rows, cache, given = 0, [], [], None, ids

    def visit(name, x):
        return edit(sites, name, x, at) if edit else None

    with torch.no_grad(), Sites(model, visit) as sites:
        while len(generated) < N_GENERATED:
            out = model(input_ids=torch.tensor([given]), past_key_values=cache, use_cache=True)
            rows.append(out.logits[0])
            cache, at = out.past_key_values, at + len(given)
            assert_clear(rows[-1][-1])
            given = [int(rows[-1][-1].argmax())]
            generated += given
    return generated, torch.cat(rows)


def plain_generation(model, ids):
    """transformers' own generate(), which must agree with the loop above and with no cache at all."""
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                         max_new_tokens=N_GENERATED, return_dict_in_generate=True, output_logits=True)
    generated, logits = out.sequences[0, len(ids):].tolist(), torch.cat(out.logits)
    again, rows = greedy(model, ids)
    assert generated == again
    with torch.no_grad():
        whole = model(input_ids=out.sequences[:, :-1], use_cache=False).logits[0]
    assert (rows - whole).norm() / whole.norm() < 1e-5
    assert (logits - rows[len(ids) - 1:]).norm() / logits.norm() < 1e-5
    return generated, logits


def make_edit(op, start, site, value):
    """The edit as a visitor: x is [n, ...] and its row 0 is position `at`."""

    def edit(sites, name, x, at):
        if name != site or at + len(x) <= start:
            return None
        v = value.reshape(x.shape[1:]) if value.numel() > 1 else value
        if op == "uniform":
            y = sites.allowed / sites.allowed.sum(-1, keepdim=True)
        else:
            y = {"add": x + v, "set": torch.zeros_like(x) + v, "mul": x * v}[op]
        return torch.where((torch.arange(len(x)) + at >= start).view(-1, *[1] * (x.dim() - 1)), y, x)

    return edit


def edits_of(c, rng, n):
    """(op, from, site, value): the classical edits of the field, then one at every site that has a fixed width."""
    d, heads, middle = c["d"], c["H"] * c["E"], c["L"] // 2
    at = lambda layer, site: f"blocks.{layer}.{site}"
    vector = lambda width: torch.randn(width, generator=rng) * 2
    one = lambda v: torch.tensor([v])
    head_off = torch.ones(heads)
    head_off[(c["H"] - 1) * c["E"]:] = 0
    yield "add", 0, at(middle, "hook_resid_post"), vector(d)          # steering
    yield "add", n // 2, at(middle, "hook_resid_post"), vector(d)     # from the middle of the prompt on
    yield "add", n, at(middle, "hook_resid_post"), vector(d)          # generated tokens only
    yield "set", 1, at(middle, "hook_resid_mid"), vector(d)           # patching
    yield "mul", 0, at(c["L"] - 1, "attn.hook_z"), head_off           # one head off
    yield "mul", 0, at(0, "hook_mlp_out"), one(0.0)                   # one MLP off
    yield "uniform", 0, at(0, "attn.hook_pattern"), one(0.0)          # attention flattened, sliding
    yield "uniform", n - 1, at(c["L"] - 1, "attn.hook_pattern"), one(0.0)
    yield "mul", 0, at(0, "attn.hook_attn_scores"), one(-0.5)         # -inf must stay out, whatever it becomes
    yield "mul", 4, at(middle, "attn.hook_attn_scores"), one(2.0)     # sharper, global
    yield "mul", 2, at(0, "ln1.hook_scale"), one(1.5)                 # frozen norms are this edit
    if c["edits"] == "few":
        return
    wide = {"attn.hook_q": heads, "attn.hook_rot_q": heads, "attn.hook_z": heads, "mlp.hook_pre": c["f"],
            "mlp.hook_pre_linear": c["f"], "mlp.hook_post": c["f"], "unembed.hook_out": c["V"], "logits": c["V"]}
    wide |= {f"attn.hook_{s}": c["G"] * c["E"] for s in ("k", "v", "rot_k")}
    for i, site in enumerate(LAYER_SITES + MODEL_SITES):
        name = at(i % c["L"], site) if site in LAYER_SITES else site
        if site.endswith("scale"):
            yield "set", 3, name, one(2.5)
        elif site not in ("attn.hook_attn_scores", "attn.hook_pattern"):
            yield ("add", "mul", "set")[i % 3 if site != "logits" else 0], i % n, name, vector(wide.get(site, d))


# ---- one model --------------------------------------------------------------------------------------------------


def noise(model, ids, rows, worst):
    """Per site: the worst row of transformers' float32 against the same code in float64."""
    model64, floats = copy.deepcopy(model).double(), torch.Tensor.float
    torch.Tensor.float = lambda x: x if x.dtype == torch.float64 else floats(x)
    try:
        exact = record(model64, ids)
    finally:
        torch.Tensor.float = floats
    for name, x in rows.items():
        a, b = x.double().flatten(1), exact[name].double().flatten(1)
        site = name.split(".", 2)[2] if name.startswith("blocks.") else name
        worst[site] = max(worst.get(site, 0), float(((a - b).norm(dim=1) / b.norm(dim=1)).max()))


def bf16(x):
    return x.bfloat16().float()


def rounded(model):
    """The same model with every linear layer on bf16 inputs; embedding rows and attention itself stay float32."""
    model = copy.deepcopy(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = bf16(module.weight.data)
            module.register_forward_pre_hook(lambda m, args: (bf16(args[0]),))
    return model


def prompts(c, model, draw, expect, worst):
    """Every site of every prompt; worst: None, or where to keep the noise of each site."""

    def wanted(site):
        return not c["sites"] or site in c["sites"] or site.partition(".")[2].partition(".")[2] in c["sites"]

    for p, n in enumerate(c["prompts"]):
        ids = draw(n)
        rows = record(model, ids, wanted)
        assert c["sites"] or len(rows) == c["L"] * len(LAYER_SITES) + len(MODEL_SITES)
        expect[f"p{p}.ids"] = ids
        expect |= {f"p{p}.{site}": x for site, x in rows.items()}
        if not c["sites"]:
            fast = record(rounded(model), ids, lambda site: site.endswith("resid_post") or site == "logits")
            expect |= {f"fast.p{p}.{site}": x for site, x in fast.items()}
        if worst is not None:
            noise(model, ids, rows, worst)


def edits(c, model, draw, rng, expect):
    ids = expect["edit.prompt"] = draw(7)
    base = greedy(model, ids)[1]
    for op, start, site, value in edits_of(c, rng, len(ids)):
        key = f"{op}.{start}.{site}"
        expect[f"edit.value.{key}"] = value
        expect[f"edit.ids.{key}"], logits = greedy(model, ids, make_edit(op, start, site, value))
        expect[f"edit.logits.{key}"] = logits
        assert torch.equal(logits[:start], base[:start]) and not torch.equal(logits[start:], base[start:]), key


def make(home, name, with_noise):
    c = settings(name)
    folder = home / "models" / name
    write_model(folder, c, random_weights(c))
    model = load(folder)
    check_read(model, c)
    rng = torch.Generator().manual_seed(c["seed"])
    draw = lambda n: [2] + torch.randint(3, c["V"], (n - 1,), generator=rng).tolist()
    expect, worst = {}, {} if with_noise else None
    prompts(c, model, draw, expect, worst)
    for g, n in enumerate(c["gens"]):
        ids = expect[f"gen{g}.prompt"] = draw(n)
        expect[f"gen{g}.ids"], expect[f"gen{g}.logits"] = plain_generation(model, ids)
    if c["edits"]:
        edits(c, model, draw, rng, expect)
    tensors = {k: torch.as_tensor(v, dtype=torch.float32).contiguous() for k, v in expect.items()}
    save_file(tensors, folder / "expect.safetensors")
    print(f"{name}: {len(expect)} tensors, {sum(f.stat().st_size for f in folder.iterdir())} bytes")
    for site, x in sorted((worst or {}).items(), key=lambda kv: -kv[1]):
        print(f"    {site:24} {x:.1e}")


# ---- the committed files, again --------------------------------------------------------------------------------------


def compare(name, committed, again):
    assert committed.keys() == again.keys(), f"{name}: not the same tensors"
    for key, a in committed.items():
        b = again[key]
        assert a.shape == b.shape, f"{name}: {key}"
        near = (a - b).norm() <= 1e-5 * b.norm() and (torch.equal(a, b) or "ids" not in key)
        assert near, f"{name}: {key} is not what transformers computes"


def check():
    """Remakes everything elsewhere: the same checkpoints, byte for byte, and the same numbers up to float32 noise."""
    with tempfile.TemporaryDirectory() as scratch:
        home = pathlib.Path(scratch)
        for name in [name for name, c in CONFIGS.items() if "prompts" in c]:
            make(home, name, False)
            for file in (home / "models" / name).iterdir():
                mine = HERE / "models" / name / file.name
                if file.name == "expect.safetensors":
                    compare(name, load_file(mine), load_file(file))
                else:
                    assert mine.read_bytes() == file.read_bytes(), f"{name}/{file.name} differs"
    compare("gguf", load_file(HERE / "gguf" / "expect.safetensors"), make_gguf.expect(HERE))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=[*(name for name, c in CONFIGS.items() if "prompts" in c), "gguf"])
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--check", action="store_true", help="compare the committed files with new ones; write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.check:
        return check()
    for name, c in CONFIGS.items():
        if args.only in (None, name) and "prompts" in c:
            make(HERE, name, args.noise)
    if args.only in (None, "gguf"):
        make_gguf.make(HERE)


if __name__ == "__main__":
    main()
