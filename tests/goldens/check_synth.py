"""Other people's readers on what `lapidary synth` writes: transformers, sentencepiece, gguf.

    python check_synth.py PATH_OF_lapidary
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from transformers import Gemma2ForCausalLM

SHAPE = "n_layers=6,d_model=256,n_heads=8,n_kv_heads=4,head_dim=32,d_ff=768,query_pre_attn_scalar=32,vocab=6000,window=24"
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "attn_norm": "input_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "post_attention_norm": "post_attention_layernorm",
         "ffn_norm": "pre_feedforward_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "post_ffw_norm": "post_feedforward_layernorm"}
# Root mean square error over root mean square, of bell-shaped weights: 2 crest / (levels sqrt 12), crest 2.4.
BOUND = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1.4 / 254, "Q4_0": 1.4 / 15, "Q5_1": 1.4 / 31, "Q4_K": 1.4 / 15,
         "Q6_K": 1.4 / 63, "Q2_K": 1.4 / 3, "Q3_K": 1.4 / 7, "Q5_K": 1.4 / 31, "Q4_1": 1.4 / 15, "Q5_0": 1.4 / 31}


def synth(program, out, kind, *more):
    subprocess.run([program, "synth", "--shape", "nano", "--set", SHAPE, "--seed", "5", "--type", kind, "-o", out, "-q",
                    *more], check=True, stdout=subprocess.DEVNULL)


def hf_name(name):
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
    return NAMES[parts[0]] + ".weight"


def check_model(model):
    """The activations of a model: the stream neither dies nor explodes, tokens do not predict themselves."""
    torch.manual_seed(0)
    ids = torch.cat([torch.tensor([2]), torch.randint(473, 5900, (63,))])[None]
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    sizes = [h.pow(2).mean().sqrt().item() for h in out.hidden_states[:-1]]
    logits = out.logits[0]
    p = torch.log_softmax(logits, -1)
    entropy = -(p.exp() * p).sum(-1).mean().item() / np.log(2)
    itself = p[torch.arange(64), ids[0]].exp().mean().item()
    print(f"stream {sizes[0]:.2f} .. {sizes[-1]:.2f}\tlogits {logits.std():.2f}, at most {logits.abs().max():.1f}\t"
          f"entropy {entropy:.1f} bits\titself {itself:.1e}")
    assert 0.2 < sizes[0] < 0.4 and 2 < sizes[-1] < 6, sizes
    assert 2.5 < logits.std() < 4.5 and 10 < logits.abs().max() < 30
    assert 3 < entropy < 11 and itself < 0.05
    text = model.generate(ids[:, :8], max_new_tokens=32, do_sample=False)[0, 8:].tolist()
    assert len(set(text)) > 8, text


def check_gguf(path, kind, state):
    reader = gguf.GGUFReader(path)
    assert len(reader.tensors) == len(state)
    worst = 0
    for t in reader.tensors:
        want = state[hf_name(t.name)].numpy()
        got = gguf.quants.dequantize(t.data, t.tensor_type).reshape(want.shape)
        if t.name.endswith("norm.weight"):
            bound = BOUND[kind] if kind in ("F16", "BF16") else 1e-6
            want = want + np.float32(1)
        else:
            bound = BOUND[t.tensor_type.name]
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error <= bound, (t.name, error, bound)
        worst = max(worst, error)
    fields = reader.fields
    assert fields["gemma2.attention.sliding_window"].parts[-1][0] == 24
    assert fields["tokenizer.ggml.token_type"].data is not None
    assert len(fields["tokenizer.ggml.tokens"].data) == 6000
    print(f"{kind}\tat most {worst:.2e}")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "f32")
        synth(program, plain, "f32", "--shard", "0.005")
        model = Gemma2ForCausalLM.from_pretrained(plain, attn_implementation="eager", dtype=torch.float32).eval()
        state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
        check_model(model)

        pieces = sentencepiece.SentencePieceProcessor(model_file=str(plain / "tokenizer.model"))
        assert pieces.vocab_size() == 6000
        assert [pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id()] == [0, 1, 2, 3]
        text = "then  a stone\n\n\tnine 9 <b>é中</b><start_of_turn>"
        assert pieces.decode(pieces.encode(text)) == text and "<start_of_turn>" in pieces.encode(text, out_type=str)

        half = Path(folder, "bf16")
        synth(program, half, "bf16")
        rounded = Gemma2ForCausalLM.from_pretrained(half, dtype=torch.bfloat16).state_dict()
        assert all(torch.equal(rounded[k], v.to(torch.bfloat16)) for k, v in state.items())

        for kind in BOUND:
            path = Path(folder, f"{kind}.gguf")
            synth(program, path, kind.lower())
            check_gguf(path, kind, state)
            path.unlink()


main()
