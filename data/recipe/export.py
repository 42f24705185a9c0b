#!/usr/bin/env python3
"""Write a run's model as a Hugging Face folder or a GGUF file, and prove it first.

    export.py --work WORK --name base --out FOLDER
    export.py --work WORK --name chat --out FILE.gguf --stop 1 107

The state dict goes into transformers' own Gemma2ForCausalLM (attention eager, the only one that caps scores).  In
float32 its logits and ours must agree on held-out text longer than the sliding window, to 1e-4 of the largest logit;
if not, nothing is written.  Then either save_pretrained writes config.json, generation_config.json and
model.safetensors in bfloat16, with the tokenizer's model file beside them; or the `gguf` package writes one file as
llama.cpp's converter lays out Gemma 2, matrices in Q8_0, norms (already 1 + w) in F32, the tokenizer inside.

Rounding to bfloat16 is what Gemma's own files have had done to them; Q8_0 halves that again.  What it costs in held-out
loss is printed.  The other scripts read a run through `load`, which rounds it the same way: what they measure is the
model as it is shipped.
"""
import argparse
import pathlib
import shutil
import sys

import gguf
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GenerationConfig

import data
import model as gemma
from run import latest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"))
import make_gguf  # noqa: E402

AGREE = 1e-4
Q8_0 = ("chat", "shield")       # runs shipped in Q8_0; all others in bfloat16


def hugging_face(net):
    s = net.shape
    names = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim sliding_window
               max_position_embeddings rms_norm_eps query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping""".split()
    config = Gemma2Config(**{n: getattr(s, n) for n in names},
                          rope_parameters={"rope_type": "default", "rope_theta": s.rope_theta},
                          pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=True,
                          attn_implementation="eager")
    hf = Gemma2ForCausalLM(config).float().eval()
    missing, unexpected = hf.load_state_dict(net.state_dict(), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"names differ: missing {missing}, unexpected {unexpected}")
    hf.tie_weights()
    return hf


@torch.no_grad()
def difference(net, hf, ids):
    """Largest difference of logits, relative to the largest logit."""
    ours, theirs = net(ids), hf(ids).logits
    return float((ours - theirs).abs().max() / theirs.abs().max())


def rounded(name, p):
    """A parameter of the run `name` as its file will hold it, in float32."""
    if name not in Q8_0:
        return p.bfloat16().float()
    if p.ndim == 1:                     # the stored gain is 1 + w in float32
        return (p.float() + 1) - 1
    blocks = gguf.quants.quantize(p.float().numpy(), gguf.GGMLQuantizationType.Q8_0)
    return torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)).reshape(p.shape)


def load(work, name, exact=False):
    """A run's model in float32, its weights as the shipped file holds them; exact: as they were trained."""
    state = latest(work, name)
    net = gemma.Gemma2(gemma.Shape(**state["shape"]))
    net.load_state_dict(state["model"] if exact else {n: rounded(name, p) for n, p in state["model"].items()})
    return net.eval()


def write_folder(out, work, net, stop):
    hf = hugging_face(net).to(torch.bfloat16)
    hf.generation_config = GenerationConfig(bos_token_id=2, pad_token_id=0,
                                            eos_token_id=stop if len(stop) > 1 else stop[0])
    hf.save_pretrained(out)
    shutil.copy(work / "tokenizer" / "tokenizer.model", out / "tokenizer.model")


def write_gguf(out, work, name, net):
    s = net.shape
    c = {"d": s.hidden_size, "L": s.num_hidden_layers, "f": s.intermediate_size, "H": s.num_attention_heads,
         "G": s.num_key_value_heads, "E": s.head_dim, "eps": s.rms_norm_eps, "attn_cap": s.attn_logit_softcapping,
         "final_cap": s.final_logit_softcapping, "window": s.sliding_window, "context": s.max_position_embeddings}
    half = out.with_suffix(".part")
    make_gguf.write_gguf(half, c, net.state_dict(), "Q8_0",
                         make_gguf.read_vocabulary(work / "tokenizer" / "tokenizer.model"), f"lapidary {name}")
    half.rename(out)


@torch.no_grad()
def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base")
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--stop", type=int, nargs="*", default=[1], help="ids that end a generation (chat models: 1 107)")
    a = args.parse_args()
    is_gguf = a.out.suffix == ".gguf"
    if is_gguf != (a.name in Q8_0):
        raise SystemExit(f"{a.name} ships as {'a .gguf file' if a.name in Q8_0 else 'a folder'} (Q8_0 in export.py says so)")
    exact, net = load(a.work, a.name, exact=True), load(a.work, a.name)
    if is_gguf and net.shape.query_pre_attn_scalar != net.shape.head_dim:
        raise SystemExit("a GGUF file has no place for a query_pre_attn_scalar that is not head_dim")
    rows, masks = data.held_windows(a.work, "novels", net.shape.max_position_embeddings, 8)
    ids, mask = torch.from_numpy(rows), torch.from_numpy(masks)
    far = difference(net, hugging_face(net), ids[:, :-1])
    if far > AGREE:
        raise SystemExit(f"transformers' logits differ by {far:.1e} of the largest: nothing written")
    a.out.parent.mkdir(parents=True, exist_ok=True)
    if is_gguf:
        write_gguf(a.out, a.work, a.name, exact)
    else:
        write_folder(a.out, a.work, net, a.stop)
    before, after = (float(gemma.capped_loss(m, ids, mask)) for m in (exact, net))
    print(f"{a.out}: {sum(p.numel() for p in net.parameters())} parameters; logits as transformers' to {far:.1e}; "
          f"novels {before:.4f} nats as trained, {after:.4f} as stored")


if __name__ == "__main__":
    main()
