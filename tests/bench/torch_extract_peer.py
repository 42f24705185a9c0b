"""PyTorch at what `lapidary bench --what extract` measures, for `--torch PYTHON` to print beside it.

    python torch_extract_peer.py THREADS CONTEXT D_SAE FOLDER JSON

JSON is the model's shape.  Prints version and extract (tokens a second): two windows of CONTEXT random tokens through
transformers' Gemma 2 in float32 (eager), at every layer the residual stream through a JumpReLU encoder as SAELens computes
it, the active features gathered and kept with torch.save.  Weights are random; one encoder serves all layers, which saves
memory and no time.
"""
import json
import sys
import time
from pathlib import Path

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

threads, context, d_sae, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
torch.manual_seed(0)
config = Gemma2Config(**json.loads(sys.argv[5]), attn_implementation="eager", use_cache=False)
with torch.device("meta"):
    model = Gemma2ForCausalLM(config)
model = model.to_empty(device="cpu").eval()
for name, p in model.named_parameters():
    if p.dim() > 1:
        p.uniform_(-1.7 / p.shape[1] ** 0.5, 1.7 / p.shape[1] ** 0.5)
    else:
        p.zero_()
for m in model.modules():  # buffers were not initialised on the meta device
    if hasattr(m, "inv_freq"):
        m.inv_freq.copy_(1.0 / 10000 ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim))
    if hasattr(m, "embed_scale"):
        m.embed_scale.fill_(config.hidden_size**0.5)
model.tie_weights()
w = torch.randn(config.hidden_size, d_sae) / config.hidden_size**0.5
b = torch.zeros(d_sae)
thresholds = [None] * config.num_hidden_layers
kept = []


def hook(layer):
    def fn(module, args, output):
        x = (output[0] if isinstance(output, tuple) else output).reshape(-1, config.hidden_size)
        pre = torch.addmm(b, x, w)
        if thresholds[layer] is None:
            thresholds[layer] = pre[:64].flatten().kthvalue(pre[:64].numel() - 80 * 64).values.item()
        acts = torch.relu(pre) * (pre > thresholds[layer])
        at = acts.nonzero()
        kept.append((at.int(), acts[at[:, 0], at[:, 1]]))

    return fn


for i, layer in enumerate(model.model.layers):
    layer.register_forward_hook(hook(i))


def window():
    kept.clear()
    model.model(torch.randint(3, config.vocab_size, (1, context)))
    torch.save(kept, folder / "peer.pt")


window()
start = time.perf_counter()
n = 2
for _ in range(n):
    window()
seconds = time.perf_counter() - start
(folder / "peer.pt").unlink()
print(f"version\tPyTorch {torch.__version__}")
print(f"extract\t{n * context / seconds:.4f}")
