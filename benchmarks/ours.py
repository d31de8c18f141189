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


def topk(n, k):
    """The k largest of each row of an n × n matrix, the others 0."""
    _kernels("native")
    x = mt.Generator(0).normal((n, n))
    return lambda: mt.kernels.topk_activation(x, k)


def _sparse_layers(width, hidden, active, options, copies):
    """Layers to go round, so that weights come from memory, and inputs of a decaying spectrum, as in trained models."""
    generator = mt.Generator(0)
    shape = np.exp(-np.arange(width) / (width / 16)).astype(np.float32) + np.float32(0.05)
    turn = np.linalg.qr(generator.normal((width, width)))[0] * shape[:, None]
    inputs = generator.normal((512, width)) @ turn * np.float32(np.sqrt(width) / np.linalg.norm(shape))
    layers = []
    for _ in range(copies):
        layer = mt.nn.SparseFeedForward(width, hidden, active, shared=options.get("shared", False), generator=generator)
        if "rank" in options:
            layer.fit_predictor(inputs[:256], options["rank"])
        layers.append(layer)
    return layers, inputs[256:]


def sparse_feed_forward(tokens, width, hidden, active, options):
    """One layer of a decoding step; dense where `active` is None, by the products that are our fastest for few tokens:
    `gathered_linear` with all rows reads a matrix 1.4 times as fast as `linear` does."""
    _kernels("native")
    layers, inputs = _sparse_layers(width, hidden, active or 1.0, options, copies=2)
    turn = [0]
    everything = np.arange(hidden)[None]
    kernels = mt.kernels

    def dense(layer, x):
        gate, up = (kernels.gathered_linear(x, w.data, everything) for w in (layer.gate, layer.up))
        return kernels.gathered_sum(kernels.silu(gate) * up, layer.down.data, everything)

    def job():
        turn[0] += 1
        layer, start = layers[turn[0] % len(layers)], turn[0] % 16 * tokens  # other tokens, other rows
        x = inputs[start : start + tokens]
        if active is None:
            return dense(layer, x)
        with mt.no_grad():
            return layer(mt.Tensor(x))

    return job


def sparse_facts(tokens, width, hidden, active, options):
    """MB of weights read a call, ‖y - dense‖ / ‖dense‖ over 256 tokens, and the share of the true top-k found."""
    (layer,), inputs = _sparse_layers(width, hidden, active, options, copies=1)
    batches = [inputs[i : i + tokens] for i in range(0, len(inputs), tokens)]
    wrong = size = rows = right = 0.0
    for x in batches:
        gate = mt.kernels.silu(mt.kernels.linear(x, layer.gate.data))
        true = mt.kernels.topk_activation(gate, layer.k, "magnitude")[1]
        scores = gate if layer.predictor is None else layer._scores(x)
        chosen = np.broadcast_to(layer._choice(scores), true.shape)
        rows += len(np.unique(chosen))
        right += sum(len(np.intersect1d(a, b)) for a, b in zip(true, chosen, strict=True)) / true.size
        with mt.no_grad():
            y = layer(mt.Tensor(x)).data
        exact = (gate * mt.kernels.linear(x, layer.up.data)) @ layer.down.data
        wrong, size = wrong + np.square(y - exact).sum(), size + np.square(exact).sum()
    rows /= len(batches)
    numbers = 3 * rows * width if "rank" in options else hidden * width + 2 * rows * width
    numbers += options.get("rank", 0) * (width + hidden)
    return numbers * 4 / 1e6, float(np.sqrt(wrong / size)), right / len(batches)
