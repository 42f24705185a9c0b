"""Every named site of Hugging Face's Gemma 2, readable and writable, without a line of the model rewritten.

`Sites(model, visit)` is a context manager.  While it is open each forward pass calls

    visit(name, x) -> None (leave it) or a tensor of x's shape (put it there)

once per site and layer, in the order of computation, with x as [n, width] or, for the sites that are per head,
[n, heads, width]; batches of one only.  The numbers are those that transformers' own code has in hand: forward hooks
where a module begins or ends, and wrappers around apply_rotary_pos_emb, eager_attention_forward (with the softmax it
calls), RMSNorm._norm and nn.functional.embedding where it does not.  Two sites are derived: `hook_scale`, the divisor
of a norm, is sqrt(mean(x^2) + eps) of the captured input in float64 (transformers multiplies by the reciprocal and
keeps neither), and an edit of it is applied as the ratio old / new to the normalised row; masked entries of
`hook_attn_scores` are shown as 0 and stay masked whatever an edit writes there.

Names: TransformerLens' where it has one; embed_raw, attn_in, attn_raw, mlp_in, mlp_raw, final_in and logits otherwise.
"""
import contextlib

import torch
from transformers.models.gemma2 import modeling_gemma2 as hf

LAYER_SITES = """hook_resid_pre ln1.hook_scale attn_in attn.hook_q attn.hook_k attn.hook_v attn.hook_rot_q
attn.hook_rot_k attn.hook_attn_scores attn.hook_pattern attn.hook_z attn_raw ln1_post.hook_scale hook_attn_out
hook_resid_mid ln2.hook_scale ln2.hook_normalized mlp_in mlp.hook_pre mlp.hook_pre_linear mlp.hook_post mlp_raw
ln2_post.hook_scale hook_mlp_out hook_resid_post""".split()
MODEL_SITES = "embed_raw hook_embed ln_final.hook_scale final_in unembed.hook_out logits".split()


class Sites:
    def __init__(self, model, visit):
        self.model, self.visit = model, visit
        self.layer = None
        self.allowed = None  # [n, heads, keys] of the attention that runs: which keys a query may see

    # ---- one value passes ----------------------------------------------------------------------------------------

    def show(self, name, x):
        """x: [1, n, ...]; what the visitor wants there instead, or x itself."""
        assert x.shape[0] == 1
        y = self.visit(name, x[0])
        if y is None:
            return x
        assert y.shape == x[0].shape and y.dtype == x.dtype, name
        return y[None]

    def show_heads(self, name, x, head_dim):
        return self.show(name, x.unflatten(-1, (-1, head_dim))).flatten(-2)

    def show_transposed(self, name, x):
        """x: [1, heads, n, width]."""
        return self.show(name, x.transpose(1, 2)).transpose(1, 2)

    def at(self, layer, name):
        return f"blocks.{layer}.{name}"

    # ---- where transformers has no module boundary ------------------------------------------------------------------

    def rotary(self, real):
        def wrapped(q, k, *args, **kwargs):
            q, k = real(q, k, *args, **kwargs)
            q = self.show_transposed(self.at(self.layer, "attn.hook_rot_q"), q)
            k = self.show_transposed(self.at(self.layer, "attn.hook_rot_k"), k)
            return q, k

        return wrapped

    def attention(self, real):
        softmax = torch.nn.functional.softmax

        def wrapped_softmax(scores, dim, dtype):
            if scores.dtype == torch.float64:  # only --noise: transformers asks for float32 here
                dtype = torch.float64
            allowed = scores > -1e30
            self.allowed = allowed[0].transpose(0, 1)
            name = self.at(self.layer, "attn.hook_attn_scores")
            shown = self.show_transposed(name, torch.where(allowed, scores, torch.zeros_like(scores)))
            scores = torch.where(allowed, shown, scores)
            pattern = softmax(scores, dim=dim, dtype=dtype)
            return self.show_transposed(self.at(self.layer, "attn.hook_pattern"), pattern)

        def wrapped(*args, **kwargs):
            torch.nn.functional.softmax = wrapped_softmax
            try:
                return real(*args, **kwargs)
            finally:
                torch.nn.functional.softmax = softmax

        return wrapped

    def embedding(self, real):
        return lambda *args, **kwargs: self.show("embed_raw", real(*args, **kwargs))

    def norm(self, module, scale_name, normalized_name=None):
        real = module._norm

        def wrapped(x):
            y = real(x)
            rms = (x.double().pow(2).mean(-1, keepdim=True) + module.eps).sqrt().to(x.dtype)
            shown = self.show(scale_name, rms)
            if shown is not rms:
                y = y * (rms.double() / shown.double()).to(y.dtype)
            return self.show(normalized_name, y) if normalized_name else y

        return wrapped

    # ---- on and off -----------------------------------------------------------------------------------------------

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            self.install(undo)
            self.undo = undo.pop_all()
        return self

    def __exit__(self, *exc):
        self.undo.close()

    def install(self, undo):
        def patch(owner, name, value):
            mine = name in vars(owner)
            old = getattr(owner, name)
            setattr(owner, name, value)
            undo.callback(lambda: setattr(owner, name, old) if mine else delattr(owner, name))

        def before(module, fn):
            undo.callback(module.register_forward_pre_hook(fn).remove)

        def after(module, fn):
            undo.callback(module.register_forward_hook(fn).remove)

        def out(module, name):
            after(module, lambda m, args, y: self.show(name, y))

        def norm(module, scale_name, out_name, normalized_name=None):
            patch(module, "_norm", self.norm(module, scale_name, normalized_name))
            out(module, out_name)

        patch(hf, "apply_rotary_pos_emb", self.rotary(hf.apply_rotary_pos_emb))
        patch(hf, "eager_attention_forward", self.attention(hf.eager_attention_forward))
        patch(torch.nn.functional, "embedding", self.embedding(torch.nn.functional.embedding))
        out(self.model.model.embed_tokens, "hook_embed")
        for i, layer in enumerate(self.model.model.layers):
            self.install_layer(i, layer, before, after, out, norm)
        norm(self.model.model.norm, "ln_final.hook_scale", "final_in")
        out(self.model.lm_head, "unembed.hook_out")

        def logits(module, args, result):
            result.logits = self.show("logits", result.logits)
            return result

        after(self.model, logits)

    def install_layer(self, i, layer, before, after, out, norm):
        name = lambda site: self.at(i, site)
        attn, mlp, E = layer.self_attn, layer.mlp, layer.self_attn.head_dim

        def enter(module, args):
            self.layer = i
            return (self.show(name("hook_resid_pre"), args[0]), *args[1:])

        def resid_mid(module, args):  # in place: the same tensor is what the MLP's output is added to
            args[0].copy_(self.show(name("hook_resid_mid"), args[0].clone()))

        before(layer, enter)
        norm(layer.input_layernorm, name("ln1.hook_scale"), name("attn_in"))
        for proj, site in (attn.q_proj, "attn.hook_q"), (attn.k_proj, "attn.hook_k"), (attn.v_proj, "attn.hook_v"):
            after(proj, lambda m, args, y, site=site: self.show_heads(name(site), y, E))
        before(attn.o_proj, lambda m, args: (self.show_heads(name("attn.hook_z"), args[0], E),))
        out(attn.o_proj, name("attn_raw"))
        norm(layer.post_attention_layernorm, name("ln1_post.hook_scale"), name("hook_attn_out"))
        before(layer.pre_feedforward_layernorm, resid_mid)
        norm(layer.pre_feedforward_layernorm, name("ln2.hook_scale"), name("mlp_in"), name("ln2.hook_normalized"))
        out(mlp.gate_proj, name("mlp.hook_pre"))
        out(mlp.up_proj, name("mlp.hook_pre_linear"))
        before(mlp.down_proj, lambda m, args: (self.show(name("mlp.hook_post"), args[0]),))
        out(mlp.down_proj, name("mlp_raw"))
        norm(layer.post_feedforward_layernorm, name("ln2_post.hook_scale"), name("hook_mlp_out"))
        out(layer, name("hook_resid_post"))


def record(model, ids, wanted=lambda name: True):
    """One forward pass over `ids`: {site: rows} of the sites that are `wanted`, as transformers computes them."""
    rows = {}

    def visit(name, x):
        if wanted(name):
            rows[name] = x.detach().clone()

    with torch.no_grad(), Sites(model, visit):
        model(input_ids=torch.tensor([ids]), use_cache=False)
    return rows
