"""What every optimiser has: parameter groups, and a state that is saved and restored exactly."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.devices import device, is_array, snapshot
from ..tensor import Tensor

__all__ = ["Optimizer", "decay_groups"]


class Optimizer:
    """Base of the optimisers; a subclass has `check(**options)` and `update(parameter, state, **options)`.

    params: tensors, or groups {"params": tensors, "lr": ..., ...} whose options take the place of the defaults. A
    schedule writes into `param_groups`: `for group in optimizer.param_groups: group["lr"] = ...`.
    Raises ValueError for no parameters, for one in two groups, and for options out of range.
    """

    def __init__(self, params, **defaults):
        name, params = type(self).__name__, list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = []
        seen = set()
        for group in groups:
            unknown = set(group) - set(defaults) - {"params"}
            if unknown:
                raise ValueError(f"{name}: unknown option {sorted(unknown)[0]!r}; known are {', '.join(defaults)}")
            unique = list({id(p): p for p in group["params"]}.values())  # a tied weight takes one step, not two
            for p in unique:
                if not isinstance(p, Tensor) or p.node is not None:
                    raise TypeError(f"{name}: parameters are leaf tensors, got {type(p).__name__}")
                if id(p) in seen:
                    raise ValueError(f"{name}: a parameter of shape {p.shape} is in two groups")
                seen.add(id(p))
            merged = {**defaults, **group, "params": unique}
            self.check(**_options(merged))
            self.param_groups.append(merged)
        if not seen:
            raise ValueError(f"{name}: there are no parameters to optimise")
        self.state: dict[int, dict] = {}  # place of a parameter, counted through the groups -> what is kept for it

    def check(self, **options) -> None:
        """Raise ValueError for options that are out of range."""

    def update(self, parameter, state: dict, **options) -> None:
        """One step of one parameter, in place; state is {} at its first."""
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        place = 0
        for group in self.param_groups:
            options = _options(group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, self.state.setdefault(place, {}), **options)
                    parameter.version.count += 1  # edited in place: a graph that saved the old values must not use it
                place += 1

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict:
        """{"param_groups": [options, places of the parameters], "state": {place: {name: number or copied array}}}.

        The arrays are NumPy's, on whatever device the parameters live.
        """
        groups, place = [], 0
        for group in self.param_groups:
            n = len(group["params"])
            groups.append({**group, "params": list(range(place, place + n))})
            place += n
        return {"param_groups": groups, "state": {place: _copied(kept) for place, kept in self.state.items()}}

    def load_state_dict(self, saved: dict) -> None:
        """Continue from what `state_dict` gave, each array on the device of its parameter.

        Raises ValueError, before anything is changed, where sizes differ.
        """
        refusal = f"this state does not fit this {type(self).__name__}"
        groups, parameters = saved["param_groups"], [p for group in self.param_groups for p in group["params"]]
        counts, own_counts = ([len(group["params"]) for group in gs] for gs in (groups, self.param_groups))
        if counts != own_counts:
            raise ValueError(f"{refusal}: its groups have {counts} parameters, here they have {own_counts}")
        state = {int(place): _copied(kept) for place, kept in saved["state"].items()}  # JSON makes the places text
        for place, kept in state.items():
            for name, value in kept.items():
                if isinstance(value, np.ndarray) and value.shape != parameters[place].shape:
                    shapes = f"{value.shape}, must be {parameters[place].shape}"
                    raise ValueError(f"{refusal}: {name} of parameter {place} has shape {shapes}")
        options = [{k: tuple(v) if isinstance(v, list) else v for k, v in _options(group).items()} for group in groups]
        for restored in options:
            self.check(**restored)
        for group, restored in zip(self.param_groups, options, strict=True):
            group.update(restored)
        self.state = {place: _placed(kept, parameters[place].device) for place, kept in state.items()}

    def to(self, target) -> Optimizer:
        """Move what is kept for the parameters to a device: after `model.to(device)`. Returns the optimiser."""
        self.state = {place: _placed(kept, target) for place, kept in self.state.items()}
        return self


def _options(group):
    return {name: value for name, value in group.items() if name != "params"}


def _copied(kept):
    return {name: snapshot(value) if is_array(value) else value for name, value in kept.items()}


def _placed(kept, target):
    return {name: device(target).put(value) if is_array(value) else value for name, value in kept.items()}


def decay_groups(model, weight_decay: float) -> list[dict]:
    """Two parameter groups: matrices, which decay, and the rest (biases, norms), which does not.

    A decayed scale or shift would be pulled away from what the data ask of it without making the function any simpler.
    """
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def check_range(owner, low=0.0, high=math.inf, **values) -> None:
    """Raise ValueError for the first value outside [low, high), NaN included."""
    for name, value in values.items():
        if not low <= value < high:
            raise ValueError(f"{owner}: {name} must lie in [{low:g}, {high:g}), got {value}")
