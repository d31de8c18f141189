"""The same jobs in PyTorch, written as its users write them. Imported only in the process that measures it."""

from __future__ import annotations

from .harness import THREADS


def training_step(layers, heads, width, context, batch, vocabulary):
    """A GPT training step: forward, backward, clip, fused AdamW; eager."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            B, T, D = x.shape
            q, k, v = (t.view(B, T, heads, D // heads).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(D, 2))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
            x = x + self.out(o)
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(width)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return F.linear(self.norm(x), self.tokens.weight)

    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, vocabulary, (batch, context + 1))

    def step():
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def attention(B, H, T, d, backward, options=None):
    """Causal scaled_dot_product_attention, forward or forward + backward. Options: `groups` of key/value heads."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    groups = (options or {}).get("groups", H)
    heads = (H, groups, groups, H)
    q, k, v, do = (torch.randn(B, n, T, d, requires_grad=i < 3 and backward) for i, n in enumerate(heads))
    grouped = {"enable_gqa": True} if groups < H else {}

    def job():
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)
        if backward:
            q.grad = k.grad = v.grad = None
            o.backward(do)

    return job


def topk(n, k):
    """torch.topk of each row of an n × n matrix."""
    import torch

    torch.set_num_threads(THREADS)
    x = torch.randn(n, n)
    return lambda: torch.topk(x, k)


def decoding(B, H, G, T, d):
    """One token for each of B texts of T tokens."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    q, k, v = torch.randn(B, H, 1, d), torch.randn(B, G, T, d), torch.randn(B, G, T, d)

    def job():
        with torch.no_grad():
            torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    return job
