"""Recipes turned into other programs' formats, run by those programs.

    python oracle_exchange.py PATH_OF_lapidary PATH_OF_steered_logits PATH_OF_data

The model is the embedded one, whose SAEs are called as Gemma Scope's are, since those names are what SAELens knows.

  lm_eval     reads our CSV and steers transformers' model by it, additions and projections (its clamp) at once.  Its own
              assertion against biases stops additions, so this runs under python -O, where only that assertion differs.
  llama.cpp   reads our control vector (tensors through the gguf package, summed as its common/common.cpp does) and adds
              it; the model is in F32, so that little stands between its logits and ours.

In each case the steered logits must agree with ours as closely as the unsteered ones do, and steering must have moved them
by far more than that.
"""
import ctypes
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types

import numpy as np

# Of a row's norm: transformers as the other goldens; llama.cpp looks GELU up in a table of half floats.
TRANSFORMERS, LLAMA = 2e-5, 1e-3
IDS = [2] + [(7919 * i + 473) % 1500 + 300 for i in range(40)]


def check(condition, what):
    """Not an assertion: those are off."""
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def ours(program, model, recipe, saes):
    done = subprocess.run([program, model, recipe, ",".join(map(str, IDS)), *map(str, saes)], check=True, stdout=subprocess.PIPE)
    return np.frombuffer(done.stdout, np.float32).reshape(len(IDS), -1).astype(np.float64)


def far(a, b):
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


def compare(name, tolerance, plain, steered, our_plain, our_steered):
    apart = far(our_plain, plain), far(our_steered, steered)
    moved = far(steered, plain)
    print(f"{name:9s} unsteered {apart[0]:.1e} apart, steered {apart[1]:.1e}, which moved them by {moved:.1e}")
    check(apart[0] < tolerance and apart[1] < max(2 * apart[0], TRANSFORMERS), f"{name}: the logits agree")
    check(moved > 100 * max(apart), f"{name}: steering is seen")


def convert(program, recipe, out, *more):
    subprocess.run([program, "recipe", "-q", recipe, "-o", out, *map(str, more)], check=True, stdout=subprocess.DEVNULL)


def write_recipe(path, edits, **more):
    everywhere = {"bos": True, "template": True, "prompt": True, "generated": True}
    path.write_text(json.dumps({"format": "lapidary-recipe", "version": 1, "features": edits, "scope": everywhere, **more}))


# ---- lm_eval ------------------------------------------------------------------------------------------------------

PLACES = {("res", 2): ("gemma-scope-2b-pt-res", "layer_2/width_16k/average_l0_53", "2-gemmascope-res-16k__l0-53"),
          ("res", 4): ("gemma-scope-2b-pt-res", "layer_4/width_16k/average_l0_124", "4-gemmascope-res-16k"),
          ("mlp", 3): ("gemma-scope-2b-pt-mlp", "layer_3/width_16k/average_l0_95", "3-gemmascope-mlp-16k")}
EDITS = [("res", 2, 473, "add", 25.0, "layers.2"), ("res", 4, 100, "project", 12.5, "layers.4"),
         ("mlp", 3, 7, "add", -6.0, "layers.3.post_feedforward_layernorm")]


def rename_saes(data, scratch):
    """The embedded SAEs in folders of Gemma Scope's: {(release, id): params.npz}."""
    found = {}
    for (site, layer), (release, sae_id, _) in PLACES.items():
        source = next((data / "saes" / site / f"layer_{layer}").glob("width_*/average_l0_*/params.npz"))
        to = scratch / release / sae_id / "params.npz"
        to.parent.mkdir(parents=True)
        shutil.copy(source, to)
        found[release, sae_id] = to
    return found


def check_lm_eval(lapidary, steered_logits, data, scratch):
    try:
        from lm_eval.models.hf_steered import SteeredModel
    except ImportError as e:
        print(f"lm_eval is not here ({e}): skipped")
        return False
    import sae_lens
    import torch
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
    saes, listed = rename_saes(data, scratch), get_pretrained_saes_directory()

    def from_pretrained(release, sae_id):
        check(sae_id in listed[release].saes_map, f"SAELens lists {release} {sae_id}")
        z = np.load(saes[release, sae_id])
        return types.SimpleNamespace(W_dec=torch.from_numpy(z["W_dec"]), b_dec=torch.from_numpy(z["b_dec"])), None, None

    sae_lens.SAE.from_pretrained = from_pretrained
    folders = [p.parent for p in saes.values()]
    recipe, steer = scratch / "recipe.json", scratch / "steer.csv"
    write_recipe(recipe, [{"layer": PLACES[site, layer][2], "index": index, "kind": kind, "strength": strength,
                           "description": 'a "name", with\na line end'} for site, layer, index, kind, strength, _ in EDITS],
                 modelId="gemma-2-2b")
    convert(lapidary, recipe, steer, *(word for f in folders for word in ("--sae", f)))

    config = SteeredModel.derive_steer_config(str(steer))
    check(list(config) == [e[5] for e in EDITS], f"hookpoints: {list(config)}")
    for site, layer, index, kind, strength, hookpoint in EDITS:
        z, got = np.load(saes[PLACES[site, layer][:2]]), config[hookpoint]
        d = z["W_dec"][index].astype(np.float64)
        want = strength if kind == "add" else strength - z["b_dec"].astype(np.float64) @ d / np.linalg.norm(d)
        check(np.array_equal(got["steering_vector"].numpy(), z["W_dec"][index]), f"{hookpoint}: the row of #{index}")
        check(abs(got["steering_coefficient"] - want) < 1e-9 * abs(want), f"{hookpoint}: {got['steering_coefficient']} for {want}")
        check(got["action"] == {"add": "add", "project": "clamp"}[kind], f"{hookpoint}: {got['action']}")

    lm = SteeredModel(pretrained=str(data / "base"), steer_path=str(steer), device="cpu", dtype="float32",
                      attn_implementation="eager")
    with torch.no_grad():
        theirs = lm._model_call(torch.tensor([IDS]))[0].double().numpy()
        plain = lm.model(torch.tensor([IDS])).logits[0].double().numpy()
    base = data / "base"
    compare("lm_eval", TRANSFORMERS, plain, theirs, ours(steered_logits, base, "-", []), ours(steered_logits, base, recipe, folders))

    again = scratch / "again.json"
    convert(lapidary, steer, again, *(word for f in folders for word in ("--sae", f)))
    back = json.loads(again.read_text())
    check([(e["layer"], e["index"], e["kind"]) for e in back["features"]] == [(PLACES[e[:2]][2], e[2], e[3]) for e in EDITS],
          "imported again: the same edits")
    check(max(abs(e["strength"] - w[4]) for e, w in zip(back["features"], EDITS)) < 1e-9, "imported again: the same strengths")
    return True


# ---- llama.cpp ----------------------------------------------------------------------------------------------------

def write_model(data, path):
    """The embedded model in F32."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "goldens"))
    import make_gguf
    import safetensors.torch
    c = json.loads((data / "base" / "config.json").read_text())
    weights = {n: x for n, x in safetensors.torch.load_file(data / "base" / "model.safetensors").items() if n != "lm_head.weight"}
    shape = {"d": c["hidden_size"], "L": c["num_hidden_layers"], "f": c["intermediate_size"], "H": c["num_attention_heads"],
             "G": c["num_key_value_heads"], "E": c["head_dim"], "eps": c["rms_norm_eps"], "V": c["vocab_size"],
             "attn_cap": c["attn_logit_softcapping"], "final_cap": c["final_logit_softcapping"],
             "window": c["sliding_window"], "context": c["max_position_embeddings"]}
    make_gguf.write_gguf(path, shape, weights, "F32", make_gguf.read_vocabulary(data / "base" / "tokenizer.model"))


def read_vector(path, width):
    """[layers from 1 on][width], as common_control_vector_load_one sums them."""
    import gguf
    reader = gguf.GGUFReader(path)
    text = {k: bytes(f.parts[f.data[0]]).decode() for k, f in reader.fields.items() if f.types[:1] == [gguf.GGUFValueType.STRING]}
    check(text["general.architecture"] == "controlvector" and text["controlvector.model_hint"] == "gemma2", f"metadata: {text}")
    layers = {}
    for t in reader.tensors:
        word, _, number = t.name.partition(".")
        check(word == "direction" and int(number) >= 1 and t.tensor_type == gguf.GGMLQuantizationType.F32, f"tensor {t.name}")
        check(t.data.shape == (width,), f"{t.name} is {t.data.shape}")
        layers[int(number)] = t.data
    count = reader.fields["controlvector.layer_count"]
    check(int(count.parts[count.data[0]][0]) == len(layers), "layer_count")
    out = np.zeros((max(layers), width), np.float32)
    for layer, x in layers.items():
        out[layer - 1] += x
    return np.ascontiguousarray(out)


def llama_logits(lc, model, vector):
    """Logits of every position of a fresh context."""
    p = lc.llama_context_default_params()
    p.n_ctx = p.n_batch = p.n_ubatch = 64
    p.n_threads = p.n_threads_batch = 1
    p.type_k = p.type_v = 0    # F32
    p.flash_attn_type = 0
    context = lc.llama_init_from_model(model, p)
    check(context, "a context")
    if vector is not None:
        data = vector.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        check(lc.llama_set_adapter_cvec(context, data, vector.size, vector.shape[1], 1, lc.llama_model_n_layer(model)) == 0,
              "llama.cpp takes the vector")
    batch = lc.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for i, token in enumerate(IDS):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    check(lc.llama_decode(context, batch) == 0, "llama_decode")
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    z = np.stack([np.ctypeslib.as_array(lc.llama_get_logits_ith(context, i), (vocab,)).astype(np.float64) for i in range(len(IDS))])
    lc.llama_batch_free(batch)
    lc.llama_free(context)
    return z


def check_llama(lapidary, steered_logits, data, scratch):
    try:
        import llama_cpp as lc
    except ImportError:
        print("llama_cpp is not here (tests/oracle-extra-requirements.txt): skipped")
        return False
    quiet = lc.llama_log_callback(lambda level, text, user: None)
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    path, vector, recipe = scratch / "base.gguf", scratch / "vector.gguf", scratch / "adds.json"
    write_model(data, path)
    res = {layer: next((data / "saes" / "res" / f"layer_{layer}").glob("width_*/average_l0_*")) for layer in (1, 3, 5)}
    write_recipe(recipe, [{"layer": f"{layer}-lapidary-res-2k", "index": index, "strength": strength, "unit": unit, "max_act": 8.5,
                           "mean_norm": 30} for layer, index, strength, unit in
                          ((1, 5, 4, "absolute"), (3, 473, 2, "max_act"), (3, 20, -9, "absolute"), (5, 100, 0.5, "mean_norm"))])
    convert(lapidary, recipe, vector, *(word for p in res.values() for word in ("--sae", p)))
    model = lc.llama_model_load_from_file(str(path).encode(), lc.llama_model_default_params())
    check(model, "llama.cpp reads the model")
    rows = read_vector(vector, lc.llama_model_n_embd(model))
    check([bool(r.any()) for r in rows] == [True, False, True, False, True], "layers 1, 3 and 5")
    plain, theirs = llama_logits(lc, model, None), llama_logits(lc, model, rows)
    our_plain, our_steered = ours(steered_logits, path, "-", []), ours(steered_logits, path, recipe, res.values())
    compare("llama.cpp", LLAMA, plain, theirs, our_plain, our_steered)

    again = scratch / "imported.json"
    convert(lapidary, vector, again)
    imported = ours(steered_logits, path, again, [e["layer"] for e in json.loads(again.read_text())["features"]])
    compare("imported", LLAMA, plain, theirs, our_plain, imported)
    lc.llama_model_free(model)
    return True


def main():
    lapidary, steered_logits, data = *sys.argv[1:3], pathlib.Path(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        done = [check_lm_eval(lapidary, steered_logits, data, folder), check_llama(lapidary, steered_logits, data, folder)]
    sys.exit(0 if all(done) else 77)


if __debug__:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.execv(sys.executable, [sys.executable, "-O", *sys.argv])
main()
