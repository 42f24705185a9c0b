"""The golden checkpoints in other containers: BF16 and F16 safetensors, GGUF in every type the engine reads.

Called by make_goldens.py.  Two models:

  twin    models/twin (F32 safetensors) again as models/twin_bf16, models/twin_f16 and gguf/twin-{F32,BF16,F16}.gguf.
          Its weights are exact in all three types, so all six files must give the same logits, to the last bit.
          gguf/twin-{Q8_0,Q4_0,Q4_1,Q5_0,Q5_1}.gguf are quantised by the `gguf` package.
  kquant  gguf/kquant-{Q2_K,Q3_K_M,Q4_K_M,Q5_K_M}.gguf, quantised by llama.cpp, mixed types as its recipes have them.

gguf/expect.safetensors holds for each file STEM.ids [n] and STEM.logits [n, V], F32: transformers' float32 logits with
the weights that the `gguf` package reads back and dequantises from that very file.  What is left is arithmetic: an
engine that reads the blocks right is within float32 noise of them, however coarse the quantisation.
"""
import ctypes
import pathlib
import tempfile

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoConfig, Gemma2ForCausalLM

from golden_models import config_json, random_weights, settings, write_model

TWINS = ["F32", "BF16", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
KQUANTS = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M"]
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12,
              "Q4_K_M": 15, "Q5_K_M": 17, "BF16": 32}

NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def vocabulary(n):
    """The least a Gemma vocabulary needs: control pieces, the 256 bytes, a few words."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    pieces = control + [f"<0x{b:02X}>" for b in range(256)]
    types = [gguf.TokenType.CONTROL] * len(control) + [gguf.TokenType.BYTE] * 256
    words = "\u2581 a b ab \u2581a \u2581ab user model c d e".split(" ")[:n - len(pieces)]
    assert len(pieces) + len(words) == n
    scores = [-1000.0] * len(control) + [0.0] * 256 + [-float(i) for i in range(len(words))]
    return pieces + words, scores, types + [gguf.TokenType.NORMAL] * len(words)


def read_vocabulary(path):
    """Pieces, scores and types of a tokenizer.model; llama.cpp numbers the types as SentencePiece does."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(pathlib.Path(path).read_bytes())
    return [[getattr(p, field) for p in proto.pieces] for field in ("piece", "score", "type")]


def write_gguf(path, c, weights, type_name, vocab=None, name=None):
    """As llama.cpp's convert_hf_to_gguf lays out Gemma 2: norms are F32 and already hold 1 + w.  vocab: (pieces, scores,
    types)."""
    w = gguf.GGUFWriter(path, "gemma2")
    w.add_name(name or "golden " + path.stem)
    w.add_context_length(c.get("context", 512))
    w.add_embedding_length(c["d"])
    w.add_block_count(c["L"])
    w.add_feed_forward_length(c["f"])
    w.add_head_count(c["H"])
    w.add_head_count_kv(c["G"])
    w.add_layer_norm_rms_eps(c["eps"])
    w.add_key_length(c["E"])
    w.add_value_length(c["E"])
    w.add_file_type(FILE_TYPES[type_name])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_attn_logit_softcapping(c["attn_cap"])
    w.add_final_logit_softcapping(c["final_cap"])
    w.add_sliding_window(c["window"])
    pieces, scores, types = vocab or vocabulary(c["V"])
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(pieces)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(2)
    w.add_eos_token_id(1)
    w.add_unk_token_id(3)
    w.add_pad_token_id(0)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(False)
    for name, x in weights.items():
        x = x.float().numpy()
        if name.endswith("norm.weight"):
            w.add_tensor(gguf_name(name), x + np.float32(1))
        else:
            w.add_tensor(gguf_name(name), gguf.quants.quantize(x, Type[type_name]), raw_dtype=Type[type_name])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def quantize_kquant(source, path, type_name):
    """llama.cpp's own quantiser and mixing recipe."""
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(quiet, None)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = FILE_TYPES[type_name], 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(params)) == 0


def logits_of(path, c, weights, ids):
    """transformers' logits with the weights that the gguf package finds in `path`; and which types those had."""
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    config = AutoConfig.for_model(**config_json(c))
    model = Gemma2ForCausalLM._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    state, types = {}, {}
    for name, x in weights.items():
        t = stored.pop(gguf_name(name))
        y = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()).reshape(x.shape)
        types[t.tensor_type.name] = types.get(t.tensor_type.name, 0) + 1
        if name.endswith("norm.weight"):
            assert torch.equal(y, 1 + x.float())  # so transformers' own 1 + w is the stored gain
            y = x.float()
        state[name] = y
    assert not stored
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    model.tie_weights()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].contiguous(), types


def write(home):
    """The files of both models, under home/models and home/gguf."""
    out = home / "gguf"
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    c = settings("twin")
    weights = random_weights(c)
    for dtype, name in ("bfloat16", "twin_bf16"), ("float16", "twin_f16"):
        half = {k: v.to(getattr(torch, dtype)) for k, v in weights.items()}
        write_model(home / "models" / name, c | {"dtype": dtype}, half)
    for t in TWINS:
        write_gguf(out / f"twin-{t}.gguf", c, weights, t)
    c = settings("kquant")
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "kquant-F32.gguf"
        write_gguf(source, c, random_weights(c), "F32")
        for t in KQUANTS:
            quantize_kquant(source, out / f"kquant-{t}.gguf", t)


def expect(home):
    """What expect.safetensors must hold for the GGUF files that are there."""
    tensors = {}
    for name, types in ("twin", TWINS), ("kquant", KQUANTS):
        c = settings(name)
        weights = random_weights(c)
        rng = torch.Generator().manual_seed(c["seed"])
        ids = [2] + torch.randint(3, c["V"], (11,), generator=rng).tolist()
        for t in types:
            path = home / "gguf" / f"{name}-{t}.gguf"
            logits, stored = logits_of(path, c, weights, ids)
            tensors[path.stem + ".ids"] = torch.tensor(ids, dtype=torch.float32)
            tensors[path.stem + ".logits"] = logits
            print(f"{path.name}: {path.stat().st_size} bytes, {stored}")
    return tensors


def make(home):
    write(home)
    save_file(expect(home), home / "gguf" / "expect.safetensors")
