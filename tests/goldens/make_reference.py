"""What Hugging Face transformers computes on a checkpoint of yours, for `lapidary verify --reference`.

    python make_reference.py MODEL --tokens 2,10,11 -o ref.safetensors [--sites hook_resid_post,logits] [--layers 0,5]
    python make_reference.py MODEL --prompt "The Colosseum is in the city of" -o ref.safetensors

MODEL is a folder or a Hub id in the cache.  Gemma2ForCausalLM, attn_implementation="eager", float32 throughout: 10.5 GB
of memory for 2B, 37 GB for 9B.  --prompt uses the checkpoint's own tokenizer, with <bos> in front.

The file holds `ids` (I64) and, F32, the tensors that `lapidary trace` would write, under the same names: [n, width],
[n, heads, width], scores and pattern [n, heads, n] with -inf and 0 where a key is masked.  All sites of all layers of
one prompt of 2B take about 13 MB a token, of which logits are 2.
"""
import argparse

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Gemma2ForCausalLM

from hf_sites import record


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--tokens", help="ids, separated by commas; taken as they are")
    p.add_argument("--prompt")
    p.add_argument("--sites", help="the ends of their names: hook_resid_post,attn.hook_z,logits (default: all)")
    p.add_argument("--layers", help="0,5,25 (default: all)")
    p.add_argument("-o", "--output", required=True)
    a = p.parse_args()
    if (a.tokens is None) == (a.prompt is None):
        p.error("either --tokens or --prompt")
    return a


def mask_scores(rows, config):
    """Keys that a query may not see, as `lapidary trace` shows them."""
    for name, x in rows.items():
        if not name.endswith("attn.hook_attn_scores"):
            continue
        n = x.shape[0]
        i, j = torch.arange(n)[:, None], torch.arange(n)[None]
        hidden = j > i
        if config.layer_types[int(name.split(".")[1])] == "sliding_attention":
            hidden |= i - j >= config.sliding_window
        x.masked_fill_(hidden[:, None, :], -torch.inf)


def main():
    a = parse()
    model = Gemma2ForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="eager").eval()
    if a.tokens is not None:
        ids = [int(t) for t in a.tokens.split(",")]
    else:
        ids = AutoTokenizer.from_pretrained(a.model)(a.prompt)["input_ids"]
    sites = a.sites and tuple(a.sites.split(","))
    layers = a.layers and {int(t) for t in a.layers.split(",")}

    def wanted(name):
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else None
        return (not sites or name.endswith(sites)) and (not layers or layer is None or layer in layers)

    rows = record(model, ids, wanted)
    mask_scores(rows, model.config)
    tensors = {name: x.float().contiguous() for name, x in rows.items()}
    tensors["ids"] = torch.tensor(ids)
    save_file(tensors, a.output, metadata={"model": a.model, "reference": "transformers, eager, float32"})
    print(f"{a.output}: {len(ids)} tokens, {len(rows)} tensors")


main()
