"""Gemma 2 in one page of PyTorch, made for training small ones quickly on a CPU.

The parameters have Hugging Face's names and shapes, so a state dict goes into Gemma2ForCausalLM as it is; export.py
does that and refuses to write anything unless both give the same logits in float32.  The equations are those of
Gemma2DecoderLayer: pre- and post-norms with 1 + w, GELU-gated MLP, rotary positions in half-split pairs, even layers
on a sliding window, tanh caps on attention scores (before the mask) and on logits, embeddings scaled by sqrt(d) and
tied with the output.

What is our own is only how it is computed.  Parameters are float32; matrix products are done in `dtype`, bfloat16 in
training, which this kind of CPU has instructions for (three to five times float32); norms, softmax and the residual
stream stay float32.  q, k and v are one product, gate and up another.  And the loss (capped_loss) walks through the
rows in chunks and makes its gradients on the way, because [tokens][8192] logits with all their intermediate results
would cross the memory bus eight times.

B batch, T tokens, D d_model, H heads, G key-value heads, E head_dim, V vocabulary.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Shape:
    """config.json's names; what is not here has Gemma 2's value."""
    vocab_size: int = 8192
    hidden_size: int = 192
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 48
    sliding_window: int = 128
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    query_pre_attn_scalar: int = 48
    attn_logit_softcapping: float = 50.0
    final_logit_softcapping: float = 30.0


class Norm(nn.Module):
    def __init__(self, width, eps, at=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), at))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class Matrix(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) * n_in ** -0.5)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        d, e = shape.hidden_size, shape.head_dim
        self.q_proj = Matrix(d, shape.num_attention_heads * e)
        self.k_proj = Matrix(d, shape.num_key_value_heads * e)
        self.v_proj = Matrix(d, shape.num_key_value_heads * e)
        self.o_proj = Matrix(shape.num_attention_heads * e, d)


class MLP(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate_proj = Matrix(shape.hidden_size, shape.intermediate_size)
        self.up_proj = Matrix(shape.hidden_size, shape.intermediate_size)
        self.down_proj = Matrix(shape.intermediate_size, shape.hidden_size)


class Layer(nn.Module):
    # What a block adds begins small beside what it adds to: the post-norms' gain 1 + w starts at 0.3.
    POST_NORM = -0.7

    def __init__(self, shape):
        super().__init__()
        d, eps = shape.hidden_size, shape.rms_norm_eps
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = Norm(d, eps)
        self.post_attention_layernorm = Norm(d, eps, self.POST_NORM)
        self.pre_feedforward_layernorm = Norm(d, eps)
        self.post_feedforward_layernorm = Norm(d, eps, self.POST_NORM)


class Inner(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def attend(q, k, v, cos, sin, mask, scale, cap, dtype):
    """q [B][T][H][E], k and v [B][T][G][E] -> [B][T][H*E].  mask [T][T] is 0 or -inf.

    The scores of a group of heads on one key-value head are one product: its rows are (head, position)."""
    B, T, H, E = q.shape
    G = k.shape[2]
    q = (rotate(q.transpose(1, 2).float(), cos, sin) * (scale / cap)).to(dtype)
    k = rotate(k.transpose(1, 2).float(), cos, sin).to(dtype)
    scores = q.reshape(B * G, H // G * T, E) @ k.reshape(B * G, T, E).transpose(1, 2)
    scores = torch.tanh(scores.float()).view(B, H, T, T) * cap + mask
    pattern = torch.softmax(scores, -1).to(dtype).view(B * G, H // G * T, T)
    z = pattern @ v.transpose(1, 2).reshape(B * G, T, E)
    return z.view(B, H, T, E).transpose(1, 2).reshape(B, T, H * E)


def keep(site, t):
    return t


class Gemma2(nn.Module):
    def __init__(self, shape, dtype=torch.float32):
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.model = Inner(shape)
        self.tables = {}

    def linear(self, x, *weights):
        w = weights[0] if len(weights) == 1 else torch.cat(weights)
        return F.linear(x.to(self.dtype), w.to(self.dtype))

    def positions(self, T):
        """cos and sin [T][E], and the two masks [T][T]: of even (sliding) and odd (global) layers."""
        if T not in self.tables:
            s = self.shape
            f = s.rope_theta ** (-torch.arange(0, s.head_dim, 2, dtype=torch.float64) / s.head_dim)
            angle = torch.arange(T, dtype=torch.float64)[:, None] * f
            angle = torch.cat((angle, angle), -1)
            back = torch.arange(T)[:, None] - torch.arange(T)
            allowed = (back >= 0) & (back < s.sliding_window), back >= 0
            masks = [torch.zeros(T, T).masked_fill(~a, float("-inf")) for a in allowed]
            self.tables[T] = angle.cos().float(), angle.sin().float(), masks
        return self.tables[T]

    def attention(self, layer, h, tables):
        """Head outputs [B][T][H*E], before the output matrix (Gemma Scope's att site)."""
        s, a = self.shape, layer.self_attn
        q, k, v = self.linear(h, a.q_proj.weight, a.k_proj.weight, a.v_proj.weight).split(
            [s.num_attention_heads * s.head_dim] + [s.num_key_value_heads * s.head_dim] * 2, -1)
        q, k, v = (t.unflatten(-1, (-1, s.head_dim)) for t in (q, k, v))
        return attend(q, k, v, *tables, s.query_pre_attn_scalar ** -0.5, s.attn_logit_softcapping, self.dtype)

    def block(self, layer, x, tables, show=keep):
        """x += post_norm(attention(pre_norm(x))), then the same around the mlp."""
        z = show("att", self.attention(layer, layer.input_layernorm(x), tables))
        x = x + layer.post_attention_layernorm(self.linear(z, layer.self_attn.o_proj.weight).float())
        if show is not keep:                # what a transcoder reads: x / rms, without the gain
            show("transcoder_in",
                 x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + layer.pre_feedforward_layernorm.eps))
        m = self.linear(layer.pre_feedforward_layernorm(x), layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)
        gate, up = m.chunk(2, -1)
        m = self.linear(F.gelu(gate.float(), approximate="tanh") * up.float(), layer.mlp.down_proj.weight)
        x = x + show("mlp", layer.post_feedforward_layernorm(m.float()))
        return show("res", x)

    def hidden(self, ids, watch=None):
        """ids [B][T] -> the final norm's output [B][T][D].  watch(site, layer, tensor) is shown the sites Gemma Scope
        reads; what it returns takes the tensor's place, None leaves it."""
        x = F.embedding(ids, self.model.embed_tokens.weight) * self.shape.hidden_size ** 0.5
        cos, sin, masks = self.positions(ids.shape[1])
        for i, layer in enumerate(self.model.layers):
            def show(site, t, i=i):
                new = watch(site, i, t)
                return t if new is None else new
            x = self.block(layer, x, (cos, sin, masks[i % 2]), keep if watch is None else show)
        return self.model.norm(x)

    def logits(self, hidden):
        cap = self.shape.final_logit_softcapping
        return cap * torch.tanh(self.linear(hidden, self.model.embed_tokens.weight).float() / cap)

    def forward(self, ids, watch=None):
        return self.logits(self.hidden(ids, watch))


def chunk_gradient(z, targets, weights, cap):
    """For one chunk of raw logits z [n][V]: the losses [n] and the gradient of sum(weights * losses) in z."""
    t = torch.tanh(z.float() / cap)
    c = cap * t
    lse = torch.logsumexp(c, -1, keepdim=True)
    p = torch.exp(c - lse)
    losses = lse.squeeze(-1) - c.gather(-1, targets[:, None]).squeeze(-1)
    p.scatter_add_(-1, targets[:, None], torch.full_like(lse, -1.0))
    return losses, (p * (1 - t * t) * weights[:, None]).to(z.dtype)


def chunk_towards(z, wanted, weights, cap):
    """The same when the target is a distribution: wanted [n][V] are a teacher's raw logits.  The losses are its
    cross-entropy with ours."""
    t = torch.tanh(z.float() / cap)
    c = cap * t
    lse = torch.logsumexp(c, -1, keepdim=True)
    q = torch.softmax(cap * torch.tanh(wanted.float() / cap), -1)
    losses = lse.squeeze(-1) - (q * c).sum(-1)
    return losses, ((torch.exp(c - lse) - q) * (1 - t * t) * weights[:, None]).to(z.dtype)


class CappedLoss(torch.autograd.Function):
    """Weighted cross-entropy of capped logits, without ever holding [N][V] of anything.  targets are ids [N], or a
    teacher's (hidden [N][D'], table [V][D'])."""
    CHUNK = 512
    gradient = staticmethod(chunk_gradient)
    towards = staticmethod(chunk_towards)

    @staticmethod
    def forward(ctx, hidden, table, targets, weights, cap, dtype):
        e, h = table.to(dtype), hidden.to(dtype)
        if not torch.is_tensor(targets):
            teacher, teacher_table = (t.to(dtype) for t in targets)
        d_hidden, d_table, total = torch.empty_like(hidden), torch.zeros_like(table), 0.0
        for at in range(0, len(h), CappedLoss.CHUNK):
            part = slice(at, at + CappedLoss.CHUNK)
            if torch.is_tensor(targets):
                losses, dz = CappedLoss.gradient(h[part] @ e.T, targets[part], weights[part], cap)
            else:
                losses, dz = CappedLoss.towards(h[part] @ e.T, teacher[part] @ teacher_table.T, weights[part], cap)
            total = total + (losses * weights[part]).sum()
            d_hidden[part] = (dz @ e).float()
            d_table += (dz.T @ h[part]).float()
        ctx.save_for_backward(d_hidden, d_table)
        return total

    @staticmethod
    def backward(ctx, g):
        d_hidden, d_table = ctx.saved_tensors
        return g * d_hidden, g * d_table, None, None, None, None


def counted(weights):
    """Places of weights [N] that are not 0, filled up with places that are, to whole chunks: one shape to compile."""
    order = torch.argsort((weights == 0).to(torch.int8), stable=True)
    n = int((weights != 0).sum())
    return order[:min(len(order), -(-n // CappedLoss.CHUNK) * CappedLoss.CHUNK)]


def capped_loss(model, ids, weights=None, teacher=None):
    """Mean cross-entropy of ids[:, 1:] given ids[:, :-1]; weights [B][T] say which targets count, and how much.  With a
    teacher, a model of the same vocabulary, of its distributions instead."""
    h = model.hidden(ids[:, :-1]).flatten(0, 1)
    table, cap = model.model.embed_tokens.weight, model.shape.final_logit_softcapping
    w = torch.ones(len(h)) if weights is None else weights.reshape(-1).float()
    w = w / w.sum()
    targets = ids[:, 1:].reshape(-1)
    if teacher is not None:
        with torch.no_grad():
            targets = teacher.hidden(ids[:, :-1]).flatten(0, 1), teacher.model.embed_tokens.weight
    elif weights is not None:
        keep_these = counted(w)
        h, w, targets = h[keep_these], w[keep_these], targets[keep_these]
    return CappedLoss.apply(h, table, targets, w, cap, model.dtype)


def compile_blocks(model):
    """Let torch.compile fuse the element-wise work of the blocks and of the loss.  About twice as fast; needs a C++
    compiler; the results differ in the last bits, as all bfloat16 does."""
    model.block = torch.compile(model.block, dynamic=False)
    CappedLoss.gradient = staticmethod(torch.compile(chunk_gradient, dynamic=False))
    CappedLoss.towards = staticmethod(torch.compile(chunk_towards, dynamic=False))
