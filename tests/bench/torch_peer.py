"""PyTorch's speed at what `lapidary bench --what sae` measures, for `--torch PYTHON` to print beside it.

    python torch_peer.py THREADS ROWS D_IN D_SAE

Prints version and encode (ms): ROWS rows through a JumpReLU encoder in float32 as SAELens computes it, dense product,
bias, threshold, then the active features gathered as (rows, indices, values).  Thresholds let through about 80 a row.
"""
import sys
import time

import torch

threads, rows, d_in, d_sae = map(int, sys.argv[1:5])
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
torch.manual_seed(0)
x = torch.randn(rows, d_in)
w = torch.randn(d_in, d_sae) / d_in**0.5
b = torch.zeros(d_sae)
pre = x[:64] @ w
threshold = pre.flatten().kthvalue(pre.numel() - 80 * 64).values.expand(d_sae).contiguous()


def encode():
    pre = torch.addmm(b, x, w)
    acts = torch.relu(pre) * (pre > threshold)
    at = acts.nonzero(as_tuple=True)
    return at, acts[at]


encode()
times = []
while len(times) < 3 or sum(times) < 1:
    start = time.perf_counter()
    encode()
    times.append(time.perf_counter() - start)
print(f"version\tPyTorch {torch.__version__}")
print(f"encode\t{1e3 * sum(times) / len(times):.4f}")
