"""llama.cpp's speed on a GGUF file, for `lapidary bench --peer PYTHON` to print beside its own.

    python llama_peer.py MODEL.gguf THREADS PROMPT TOKENS

Prints version, prompt (tokens/s of PROMPT tokens in one batch) and decode (tokens/s of TOKENS single tokens from an
empty cache).  The low-level API, so that nothing but llama_decode is timed; the model is read fully before (no mapping
that would page in during the measurement), the cache is f16 as llama.cpp's own default has it.
"""
import ctypes
import sys
import time

import llama_cpp as ll


def feed(context, ids, at):
    batch = ll.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i] = token
        batch.pos[i] = at + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = i == len(ids) - 1
    start = time.perf_counter()
    status = ll.llama_decode(context, batch)
    ll.llama_get_logits_ith(context, len(ids) - 1)  # waits for the result
    seconds = time.perf_counter() - start
    ll.llama_batch_free(batch)
    if status:
        sys.exit(f"llama_decode: {status}")
    return seconds


def forget(context):
    if hasattr(ll, "llama_memory_clear"):
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
    else:
        ll.llama_kv_cache_clear(context)


def main():
    path, threads, n_prompt, n_tokens = sys.argv[1], *map(int, sys.argv[2:5])
    quiet = ll.llama_log_callback(lambda level, text, user: None)
    ll.llama_log_set(quiet, ctypes.c_void_p(0))
    ll.llama_backend_init()
    mp = ll.llama_model_default_params()
    mp.use_mmap = False
    model = (getattr(ll, "llama_model_load_from_file", None) or ll.llama_load_model_from_file)(path.encode(), mp)
    if not model:
        sys.exit(f"llama.cpp cannot read {path}")
    cp = ll.llama_context_default_params()
    cp.n_ctx = max(n_prompt, n_tokens) + 16
    cp.n_batch = cp.n_ubatch = max(n_prompt, 32)
    cp.n_threads = cp.n_threads_batch = threads
    context = (getattr(ll, "llama_init_from_model", None) or ll.llama_new_context_with_model)(model, cp)
    if not context:
        sys.exit("llama.cpp gives no context")
    vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    ids = [2] + [(7919 * i + 473) % vocab for i in range(1, max(n_prompt, n_tokens + 1))]

    feed(context, ids[:32], 0)
    forget(context)
    print(f"version\tllama-cpp-python {ll.__version__}")
    print(f"prompt\t{n_prompt / feed(context, ids[:n_prompt], 0):.4f}")
    forget(context)
    feed(context, ids[:1], 0)
    seconds = sum(feed(context, ids[i:i + 1], i) for i in range(1, n_tokens + 1))
    print(f"decode\t{n_tokens / seconds:.4f}")


main()
