#!/usr/bin/env python3
"""Write a run's model as a Hugging Face folder, and prove it first.

    export.py --work WORK --name base --out FOLDER

The state dict goes into transformers' own Gemma2ForCausalLM (attention eager, the only one that caps scores).  In
float32 its logits and ours must agree on held-out text longer than the sliding window, to 1e-4 of the largest logit;
if not, nothing is written.  Then save_pretrained writes config.json, generation_config.json and model.safetensors in
bfloat16, and the tokenizer's model file is laid beside them.  Rounding to bfloat16 is what Gemma's own files have had
done to them; what it costs in held-out loss is printed.
"""
import argparse
import pathlib
import shutil

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GenerationConfig

import data
import model as gemma
from run import latest

AGREE = 1e-4


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


def load(work, name):
    """A run's model, in float32."""
    state = latest(work, name)
    net = gemma.Gemma2(gemma.Shape(**state["shape"]))
    net.load_state_dict(state["model"])
    return net.eval()


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--name", default="base")
    args.add_argument("--out", required=True, type=pathlib.Path)
    args.add_argument("--stop", type=int, nargs="*", default=[1], help="ids that end a generation (chat models: 1 107)")
    a = args.parse_args()
    net = load(a.work, a.name)
    hf = hugging_face(net)
    rows, masks = data.held_windows(a.work, "novels", net.shape.max_position_embeddings, 8)
    ids, mask = torch.from_numpy(rows), torch.from_numpy(masks)
    far = difference(net, hf, ids[:, :-1])
    if far > AGREE:
        raise SystemExit(f"transformers' logits differ by {far:.1e} of the largest: nothing written")
    with torch.no_grad():
        before = float(gemma.capped_loss(net, ids, mask))
        hf = hf.to(torch.bfloat16)
        net.load_state_dict({n: p.float() for n, p in hf.state_dict().items() if n != "lm_head.weight"})
        after = float(gemma.capped_loss(net, ids, mask))
    hf.generation_config = GenerationConfig(bos_token_id=2, pad_token_id=0,
                                            eos_token_id=a.stop if len(a.stop) > 1 else a.stop[0])
    hf.save_pretrained(a.out)
    shutil.copy(a.work / "tokenizer" / "tokenizer.model", a.out / "tokenizer.model")
    print(f"{a.out}: {sum(p.numel() for p in net.parameters())} parameters; logits as transformers' to {far:.1e}; "
          f"novels {before:.4f} nats in float32, {after:.4f} in bfloat16")


if __name__ == "__main__":
    main()
