"""The jobs in minitransformer. Imported only in the process that measures it."""

from __future__ import annotations

import numpy as np

import minitransformer as mt

from .harness import THREADS


def _kernels(name):
    """Choose the kernel set for the rest of this process."""
    mt.kernels.use(name).__enter__()
    if name == "native":
        mt.kernels.native.set_thread_count(THREADS)
        mt.kernels.native.keep_freed_memory()  # as `minitransformer train` does


def training_step(layers, heads, width, context, batch, vocabulary, kernels="native"):
    """A GPT training step: forward, backward, clip, AdamW."""
    _kernels(kernels)
    config = mt.models.GPTConfig(vocabulary, context, layers, heads, width)
    model = mt.models.GPT(config, mt.Generator(0))
    optimizer = mt.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    ids = mt.Generator(1).integers(0, vocabulary, (batch, context + 1))
    parameters = list(model.parameters())

    def step():
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        mt.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def attention(B, H, T, d, backward, options=None, kernels="native"):
    """Causal attention through the engine, forward or forward + backward. Options: `window`, `groups`."""
    _kernels(kernels)
    options = dict(options or {})
    groups, generator = options.pop("groups", H), mt.Generator(0)
    q, k, v = (mt.Tensor(generator.normal((B, n, T, d)), requires_grad=backward) for n in (H, groups, groups))
    do = generator.normal((B, H, T, d))

    def job():
        o = mt.scaled_dot_product_attention(q, k, v, is_causal=True, **options)
        if backward:
            q.grad = k.grad = v.grad = None
            o.backward(do)

    return job


def decoding(B, H, G, T, d, page=None):
    """One token for each of B texts of T tokens: from shuffled pages, or from keys in one piece."""
    _kernels("native")
    generator = mt.Generator(0)
    q, k, v = (mt.Tensor(generator.normal(shape)) for shape in ((B, H, 1, d), (B, G, T, d), (B, G, T, d)))
    if page is None:
        return lambda: mt.scaled_dot_product_attention(q, k, v, is_causal=True)
    table = generator.permutation(B * T // page).reshape(B, T // page)
    keys, values = (mt.Tensor(x.numpy().reshape(-1, G, page, d)) for x in (k, v))
    lengths = np.full(B, T)
    return lambda: mt.paged_attention(q, keys, values, table, lengths)


def op_overhead(backward, ops=200):
    """A chain of additions of 8 numbers: all overhead, no arithmetic."""
    x = mt.Tensor(np.ones(8, np.float32), requires_grad=True)
    y = mt.Tensor(np.ones(8, np.float32))
    dy = np.ones(8, np.float32)

    def job():
        z = x
        for _ in range(ops):
            z = z + y
        if backward:
            z.backward(dy)

    return job


def numpy_additions(ops=200):
    """The same additions in NumPy alone."""
    x = np.ones(8, np.float32)

    def job():
        z = x
        for _ in range(ops):
            z = z + x

    return job


def kernel(name, kernels):
    """One routine of `benchmarks.kernels` on a kernel set."""
    from .kernels import jobs

    _kernels(kernels)
    return jobs()[name]
