"""What can be looked at: one model's attention, a second one, training steps, derived maps; brought to one form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checks import attention_array
from ..head_statistics import effective_keys, entropy, jensen_shannon, rollout, statistics, strongest_weight

_VIEW = "explore"
_LAYER = ("head", "query", "key")
ROLLOUT_LENGTH = 1024  # T³ work a layer: above, rollout is not added by itself


@dataclass(frozen=True)
class Source:
    """Layers of heads (H, Tq, Tk); the number of heads may differ between layers."""

    name: str
    kind: str  # "attention", "step" or "map"
    layers: list
    step: float | None = None

    @property
    def normalised(self):
        return self.kind != "map"

    @property
    def scale(self):
        """The value of the highest code: 1 for probabilities."""
        return 1.0 if self.normalised else max(float(layer.max()) for layer in self.layers) or 1.0


def key_length(attention):
    """(Tq, Tk) of anything that `collect` takes as attention, before it is checked."""
    if isinstance(attention, dict):
        attention = next(iter(attention.values()), ())
    shape = np.shape(attention[0]) if isinstance(attention, list | tuple) and len(attention) else np.shape(attention)
    return (0, 0, *shape)[-2:]


def layers_of(name, attention, *, normalised=True):
    """(L, H, Tq, Tk), (H, Tq, Tk), (Tq, Tk) or a list of layers (H_l, Tq, Tk) -> list of float arrays (H_l, Tq, Tk).

    Raises TypeError or ValueError that names the source, the layer and the axis.
    """
    view = f"{_VIEW}: {name}"
    if isinstance(attention, list | tuple) and attention and np.ndim(attention[0]) >= 3:
        layers = list(attention)
    else:
        try:
            array = np.asarray(attention)
        except ValueError:
            raise TypeError(f"{view} must be one array, or a list of layers with the axes (head, query, key)") from None
        if array.ndim > 4:
            raise ValueError(
                f"{view} has shape {array.shape}, too many axes for (layer, head, query, key); "
                "choose one entry of a batch: attention[:, 0]"
            )
        layers = {4: list, 3: lambda a: [a], 2: lambda a: [a[None]]}.get(array.ndim, lambda a: [a])(array)
    if not layers:
        raise ValueError(f"{view} has an empty layer axis")
    if np.ndim(layers[0]) == 4:
        raise ValueError(
            f"{view}, layer 0 has shape {np.shape(layers[0])}: a batch axis before (head, query, key); "
            "choose one entry of every layer: [layer[0] for layer in attention]"
        )
    checked = [attention_array(f"{view}, layer {i}", a, _LAYER, normalised=normalised) for i, a in enumerate(layers)]
    for i, layer in enumerate(checked):
        if layer.shape[1:] != checked[0].shape[1:]:
            raise ValueError(
                f"{view}, layer {i} has (query, key) = {layer.shape[1:]} but layer 0 has {checked[0].shape[1:]}: "
                "one length for all layers is needed (pad windows with zeros)"
            )
        if layer.min() < 0 and not normalised:
            raise ValueError(
                f"{view}, layer {i} has negative values; a map shows magnitudes (take np.abs, or clip at 0)"
            )
    return checked


def collect(attention, versus, names, maps, self_attention):
    """Everything given, as a list of sources of one (Tq, Tk), the first being what is shown first."""
    if isinstance(attention, dict):
        if not attention:
            raise ValueError(f"{_VIEW}: the dictionary of training steps is empty")
        if versus is not None:
            raise ValueError(f"{_VIEW}: give either training steps or versus, not both")
        try:
            steps = sorted(attention, key=float)
            finite = np.isfinite(np.array(steps, dtype=float)).all()
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise TypeError(f"{_VIEW}: training steps must be finite numbers, got {list(attention)[:3]}")
        sources = [Source(f"step {s}", "step", layers_of(f"step {s}", attention[s]), float(s)) for s in steps]
    else:
        first = names[0] if versus is not None else "attention"
        sources = [Source(first, "attention", layers_of(first, attention))]
        if versus is not None:
            sources.append(Source(names[1], "attention", layers_of(names[1], versus)))
    queries, keys = sources[0].layers[0].shape[1:]
    if self_attention and queries == keys and keys <= ROLLOUT_LENGTH:
        for source in [s for s in sources if s.kind == "attention"]:
            means = np.stack([layer.mean(axis=0, dtype=np.float64) for layer in source.layers])
            flow = rollout(means[:, None])
            name = "rollout" if versus is None else f"rollout of {source.name}"
            sources.append(Source(name, "map", [layer[None] for layer in flow]))
    for name, values in (maps or {}).items():
        sources.append(Source(str(name), "map", layers_of(name, values, normalised=False)))
    for source in sources:
        if source.layers[0].shape[1:] != (queries, keys):
            raise ValueError(
                f"{_VIEW}: {source.name} has (query, key) = {source.layers[0].shape[1:]} but {sources[0].name} has "
                f"{(queries, keys)}; what is shown together needs one query axis and one key axis"
            )
    return sources


def head_numbers(source, reference, token_ids, visible, self_attention):
    """{statistic: [one list a layer of one number a head]} of a source; None where a statistic is not defined.

    With a reference of the same heads, also how far each head is from it: the mean Jensen-Shannon divergence of its
    rows and the largest |difference|.
    """
    comparable = reference is not None and source.normalised and reference.normalised
    comparable = comparable and [len(layer) for layer in reference.layers] == [len(layer) for layer in source.layers]
    table = {}
    for i, layer in enumerate(source.layers):
        for j, head in enumerate(layer):  # one at a time: float64 copies of a whole layer would not fit the cache
            if source.normalised and self_attention:
                found = statistics(head, token_ids, visible)
            else:
                found = {"strongest weight": strongest_weight(head, visible)}
                if source.normalised:
                    found |= {"entropy": entropy(head, visible), "effective keys": effective_keys(head)}
            if comparable:
                found["JS divergence"] = jensen_shannon(head, reference.layers[i][j]).mean()
                found["largest difference"] = np.abs(head - reference.layers[i][j]).max()
            for name, value in found.items():
                rows = table.setdefault(name, [[] for _ in source.layers])
                rows[i].append(float(f"{value:.5g}") if np.isfinite(value) else None)
    return table


def stitch(steps):
    """A prefill and its decode steps as one map: [(L, H, T₀, T₀), (L, H, 1, T₀ + 1), ...] -> (L, H, T, T), zeros ahead.

    Raises ValueError for a step whose keys are not all positions up to its last query.
    """
    steps = [np.asarray(step) for step in steps]
    if not steps or any(step.ndim != 4 or step.shape[:2] != steps[0].shape[:2] for step in steps):
        raise ValueError("stitch: every step must have shape (layer, head, query, key) with the same layers and heads")
    total = sum(step.shape[2] for step in steps)
    whole = np.zeros((*steps[0].shape[:2], total, total), dtype=steps[0].dtype)
    done = 0
    for i, step in enumerate(steps):
        stop = done + step.shape[2]
        if step.shape[3] != stop:
            raise ValueError(f"stitch: step {i} has {step.shape[3]} keys but its last query is position {stop - 1}")
        whole[:, :, done:stop, :stop] = step
        done = stop
    return whole
