"""What a model makes of a text, as the arrays that `visualization.explore` shows.

view = inspect(model, tokenizer, tokenizer.encode("the cat sat"))
explore(view.attention, view.labels, **view.beside).save("attention.html")
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from ..graph import enable_grad, no_grad
from ..kernels.devices import fetch
from ..nn import Recording
from ..ops.cross_entropy import cross_entropy
from ..ops.softmax import softmax
from ..tensor import tensor
from ..visualization import LogitLens, relevance, value_weighted

__all__ = ["Inspection", "inspect"]

MAP_CELLS = 1 << 24  # L·H·T² of a text above which the extra maps are left out: each is as large as the attention


@dataclass(frozen=True)
class Inspection:
    """One text through one model.

    attention (L, H, T, T); labels and token_ids, T each; lens: what each layer would predict. maps, (L, H, T, T):
    "value-weighted norm" ‖a_ij v_j W_h‖, what a link adds to the stream; "gradient × attention" max(0, a_ij da_ij), the
    nats that a link saves on the text's next tokens, to first order; "relevance" (L, 1, T, T), that through all layers.
    """

    attention: np.ndarray
    labels: list[str]
    token_ids: np.ndarray
    maps: dict[str, np.ndarray]
    lens: LogitLens

    @property
    def beside(self) -> dict:
        """What `explore` takes besides the attention and the labels."""
        return {"maps": self.maps, "lens": self.lens, "token_ids": self.token_ids}


def inspect(model, tokenizer, ids, candidates: int = 5) -> Inspection:
    """A GPT reads ids (T,), undisturbed: no dropout, and its gradients are left as they were.

    candidates: how many likeliest tokens the lens keeps. The gradient is that of Σ_t ln p(token t+1), so a text of one
    token has no maps of it. Raises ValueError for ids that are not one sequence, or longer than the context.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"inspect: ids must be one sequence (T,), got shape {ids.shape}")
    c, recording, T = model.config, Recording(), len(ids)
    extras = c.layers * c.heads * T * T <= MAP_CELLS
    differentiates = extras and T > 1
    with model.evaluating(), _own_gradients(model), enable_grad() if differentiates else no_grad():
        here = tensor(ids[None]).to(model.device)
        logits, attentions = model(here, capture_attention=recording)
        if differentiates:
            ((T - 1) * cross_entropy(logits[:, :-1], here[:, 1:])).backward()
    with no_grad():
        lens = _lens(model, tokenizer, recording.streams, min(candidates, c.vocab_size))
    attention = np.stack([fetch(layer[0]) for layer in attentions])  # (L, H, T, T)
    maps = {}
    if extras:
        outward = [fetch(b.attention.output.weight.data).T for b in model.blocks]
        outward = [weight.reshape(c.heads, -1, c.width) for weight in outward]  # (H, d, D)
        norms = [value_weighted(*of) for of in zip(attention, (fetch(v[0]) for v in recording.values), outward)]
        maps["value-weighted norm"] = np.stack(norms)
    if differentiates:
        saved = -np.stack([fetch(layer[0]) for layer in recording.attention_gradients()])  # of the log-probability
        maps["gradient × attention"] = np.maximum(attention * saved, 0)
        maps["relevance"] = relevance(attention, saved)[:, None]
    labels = [_label(tokenizer, id, readable) for id, readable in zip(ids, tokenizer.token_strings(ids), strict=True)]
    return Inspection(attention, labels, ids, maps, lens)


@contextlib.contextmanager
def _own_gradients(model):
    """Gradients start from nothing, of frozen parameters too; afterwards each is as it was, untouched."""
    kept = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _, _ in kept:
        parameter.grad, parameter.requires_grad = None, True
    try:
        yield
    finally:
        for parameter, gradient, trained in kept:
            parameter.grad, parameter.requires_grad = gradient, trained


def _label(tokenizer, id, readable):
    """A token's text as it is, for the page to show, or the tokenizer's label where its bytes are part of a character.

    The tokenizer's label marks a space as "·", which a page that sets text as text could not tell from a dot.
    """
    try:
        return tokenizer.token_bytes(int(id)).decode("utf-8")
    except UnicodeDecodeError:
        return readable


def _lens(model, tokenizer, streams, k):
    """The k likeliest next tokens at each position if the model ended after the embeddings, after layer 0, ..."""
    tokens, probabilities = [], []
    for x in streams:
        p = softmax(model.unembed(x.detach())).to("cpu").numpy()[0]  # (T, V)
        top = np.argsort(-p, axis=-1, kind="stable")[:, :k]
        tokens.append([[_label(tokenizer, id, tokenizer.token_text(int(id))) for id in row] for row in top])
        probabilities.append(np.take_along_axis(p, top, axis=-1))
    names = ("input", *(f"layer {i}" for i in range(len(streams) - 1)))
    return LogitLens(tokens, np.stack(probabilities), names)
