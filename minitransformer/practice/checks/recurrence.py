"""Lesson 06: a step of an RNN back by hand, a step of an LSTM, what a state owes to earlier ones, back through time."""

import numpy as np

from . import Wrong, arrays, check, equal, forbid, frozen, parts, shown

for number in ("06.1", "06.2", "06.4"):
    forbid(number, "linear", "linear_backward", "matmul")


def _finite_differences(function, inputs, cotangents, got, names):
    """Each gradient in `got` against central differences of Σ cotangent · output, entry by entry, in float64."""

    def value():
        return sum(float((dy * y).sum()) for dy, y in zip(cotangents, function(*inputs)))

    inputs, step = [x.copy() for x in inputs], 1e-6
    for x, gradient, name in zip(inputs, got, names):
        for at in np.ndindex(x.shape):
            kept, sides = x[at], []
            for sign in (step, -step):
                x[at] = kept + sign
                sides.append(value())
            x[at] = kept
            right = (sides[0] - sides[1]) / (2 * step)
            if not np.isclose(gradient[at], right, rtol=1e-6, atol=1e-7):
                raise Wrong(f"{name}{list(at)} is {gradient[at]:.8g}, finite differences give {right:.8g}")


# ---------------------------------------------------------------- 06.1 rnn_step_backward


def _rnn(x, h, W_x, W_h, b):
    return np.tanh(x @ W_x.T + b + h @ W_h.T)


STEP_NAMES = ("dx", "dh", "dW_x", "dW_h", "db")


def _step_backward(rnn_step_backward, x, h, W_x, W_h, b, dy, terms=1):
    got = parts("rnn_step_backward", rnn_step_backward(x, h, W_x, W_h, b, dy), 5)
    slope = dy * (1 - _rnn(x, h, W_x, W_h, b) ** 2)
    right = (
        np.einsum("bd,dk->bk", slope, W_x), np.einsum("bd,de->be", slope, W_h), np.einsum("bd,bk->dk", slope, x),
        np.einsum("bd,be->de", slope, h), np.einsum("bd->d", slope),
    )  # fmt: skip
    for name, one, other in zip(STEP_NAMES, got, right):
        equal(name, one, other, {"x": x, "h": h, "dy": dy}, terms=terms, condition=16)
    return got


def _step_inputs(seed, B, K, D, dtype=np.float64):
    return arrays(seed, (B, K), (B, D), (D, K), (D, D), (D,), (B, D), dtype=dtype)


@check("06.1", "one channel on paper: y = 1/2")
def _(rnn_step_backward):
    """The sum under tanh is atanh(1/2), so the slope is 3/4."""
    a = np.arctanh(0.5)
    arguments = [frozen(np.array(v, float)) for v in ([[a]], [[2.0]], [[2.0]], [[-1.0]], [2 - a], [[4.0]])]
    got = parts("rnn_step_backward", rnn_step_backward(*arguments), 5)
    for name, one, right in zip(STEP_NAMES, got, ([[6.0]], [[-3.0]], [[3 * a]], [[6.0]], [3.0])):
        equal(name, one, np.array(right), {"x": arguments[0], "h": arguments[1], "dy": arguments[5]})


@check("06.1", "all five have the shapes of their inputs: one row, no row, many")
def _(rnn_step_backward):
    for seed, (B, K, D) in enumerate(((1, 2, 3), (0, 3, 2), (5, 4, 3), (2, 1, 6), (33, 17, 9))):
        _step_backward(rnn_step_backward, *_step_inputs(seed, B, K, D), terms=B + K + D)


@check("06.1", "float32 stays float32")
def _(rnn_step_backward):
    _step_backward(rnn_step_backward, *_step_inputs(20, 3, 4, 5, np.float32), terms=12)


@check("06.1", "finite differences agree")
def _(rnn_step_backward):
    *inputs, dy = _step_inputs(21, 2, 3, 2)
    got = _step_backward(rnn_step_backward, *inputs, dy, terms=7)
    _finite_differences(lambda *a: (_rnn(*a),), inputs, (dy,), got, STEP_NAMES)


# ---------------------------------------------------------------- 06.2 lstm_step


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -x)).astype(x.dtype)


def _lstm(x, h, c, W_x, W_h, b):
    D = h.shape[1]
    a = x @ W_x.T + b + h @ W_h.T
    i, f, o, g = (a[:, n * D : (n + 1) * D] for n in range(4))
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _lstm_step(lstm_step, *arguments, terms=1):
    with np.errstate(over="raise"):
        try:
            got = parts("lstm_step", lstm_step(*arguments), 2)
        except FloatingPointError as error:
            raise Wrong(f"{error}: a gate far to one side must not overflow; b = {shown(arguments[5])}") from None
    shown_inputs = dict(zip(("x", "h", "c"), arguments))
    for name, one, right in zip(("h", "c"), got, _lstm(*arguments)):
        equal(name, one, right, shown_inputs, terms=terms, condition=16)


def _gates(i, f, o, g):
    """A step in which the biases alone decide: weights 0, one row, one channel, c = 2."""
    zero = [frozen(np.zeros(shape)) for shape in ((1, 1), (1, 1), (4, 1), (4, 1))]
    return zero[0], zero[1], frozen(np.array([[2.0]])), zero[2], zero[3], frozen(np.array([i, f, o, g], float))


@check("06.2", "on paper: half of a memory of 2 is kept, nothing is written")
def _(lstm_step):
    h, c = parts("lstm_step", lstm_step(*_gates(0, 0, 0, 0)), 2)
    equal("c", c, np.array([[1.0]]), {"gates": "all 0, so σ = 1/2 and tanh(g) = 0; c was 2"})
    equal("h", h, np.array([[np.tanh(1.0) / 2]]), {"gates": "all 0"})


@check("06.2", "one gate at a time")
def _(lstm_step):
    for gates in ((3, 0, 0, 1), (0, 3, 0, 1), (0, 0, 3, 1), (-3, 2, 1, -2)):
        _lstm_step(lstm_step, *_gates(*gates))


@check("06.2", "random weights, several rows and channels")
def _(lstm_step):
    for seed, (B, K, D) in enumerate(((1, 1, 1), (2, 3, 2), (0, 2, 3), (7, 5, 4))):
        shapes = (B, K), (B, D), (B, D), (4 * D, K), (4 * D, D), (4 * D,)
        _lstm_step(lstm_step, *arrays(seed, *shapes), terms=K + D)
    _lstm_step(lstm_step, *arrays(9, (3, 2), (3, 4), (3, 4), (16, 2), (16, 4), (16,), dtype=np.float32), terms=6)


@check("06.2", "gates far to one side: no overflow")
def _(lstm_step):
    for far in (800.0, 1e4):
        for gates in ((far, -far, far, 0.5), (-far, far, -far, far), (-far, -far, 0.5, -far)):
            _lstm_step(lstm_step, *_gates(*gates))


# ---------------------------------------------------------------- 06.3 state_jacobians


def _states(seed, T, D, dtype=np.float64):
    """States of an RNN that reads noise, and its W_h."""
    noise, W_h = arrays(seed, (T, D), (D, D))
    h, states = np.zeros(D), []
    for a in noise:
        h = np.tanh(a + W_h @ h)
        states.append(h)
    return frozen(np.array(states, dtype).reshape(T, D)), frozen(np.asarray(W_h, dtype))


def _jacobians(state_jacobians, h, W_h):
    T, D = h.shape
    right = np.empty((T, D, D))
    for t in range(T):
        columns = np.eye(D)  # what a small push in each channel of h_t has become
        for after in h[t + 1 :].astype(np.float64):
            columns = (1 - after**2)[:, None] * np.einsum("ij,jk->ik", W_h.astype(np.float64), columns)
        right[t] = columns
    equal("J", state_jacobians(h, W_h), right.astype(h.dtype), {"h": h, "W_h": W_h}, terms=T * D, condition=16)


@check("06.3", "one channel on paper: W_h = 2, states 0, 1/2, 0")
def _(state_jacobians):
    """Factors 2 · (1 - 0) for the last step and 2 · (1 - 1/4) for the one before."""
    h, W_h = frozen(np.array([[0.0], [0.5], [0.0]])), frozen(np.array([[2.0]]))
    equal("J", state_jacobians(h, W_h), np.array([3.0, 2.0, 1.0]).reshape(3, 1, 1), {"h": h, "W_h": W_h})


@check("06.3", "a single state is itself")
def _(state_jacobians):
    equal("J", state_jacobians(*_states(0, 1, 3)), np.eye(3)[None], exact=True)


@check("06.3", "two channels, matrices that do not commute")
def _(state_jacobians):
    for seed, (T, D) in enumerate(((2, 2), (3, 2), (6, 3), (20, 5))):
        _jacobians(state_jacobians, *_states(seed, T, D))


@check("06.3", "float32 stays float32")
def _(state_jacobians):
    _jacobians(state_jacobians, *_states(7, 4, 3, np.float32))


@check("06.3", "a push at step t, run forward again, arrives as J[t] says")
def _(state_jacobians):
    noise, W_h = arrays(11, (6, 3), (3, 3))

    def run(push=None, at=None):
        h, states = np.zeros(3), []
        for t, a in enumerate(noise):
            h = np.tanh(a + W_h @ h)
            h = h if t != at else h + push
            states.append(h)
        return np.array(states)

    J = np.asarray(state_jacobians(frozen(run()), W_h))
    for t in range(5):
        push = arrays(t, (3,))[0]
        right = (run(1e-6 * push, t)[-1] - run(-1e-6 * push, t)[-1]) / 2e-6
        if not np.allclose(J[t] @ push, right, rtol=1e-6, atol=1e-8):
            raise Wrong(f"a push {shown(push)} at step {t} arrives as {shown(right)}, J[{t}] says {shown(J[t] @ push)}")


# ---------------------------------------------------------------- 06.4 rnn_backward

THROUGH_NAMES = ("dx", "dW_x", "dW_h", "db")


def _run(x, W_x, W_h, b):
    h, states = np.zeros((len(x), len(b)), x.dtype), []
    for t in range(x.shape[1]):
        h = _rnn(x[:, t], h, W_x, W_h, b)
        states.append(h)
    return np.stack(states, axis=1)


def _backward(rnn_backward, x, W_x, W_h, b, dh, terms=1):
    """By brute force: every pair of steps s <= t on its own, through the factors between them."""
    got = parts("rnn_backward", rnn_backward(x, W_x, W_h, b, dh), 4)
    h = _run(x, W_x, W_h, b)
    before = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
    da = np.zeros_like(dh)
    for t in range(x.shape[1]):
        arriving = dh[:, t]
        for s in range(t, -1, -1):
            under = arriving * (1 - h[:, s] ** 2)
            da[:, s] += under
            arriving = under @ W_h
    right = (
        np.einsum("btd,dk->btk", da, W_x), np.einsum("btd,btk->dk", da, x),
        np.einsum("btd,bte->de", da, before), np.einsum("btd->d", da),
    )  # fmt: skip
    for name, one, other in zip(THROUGH_NAMES, got, right):
        equal(name, one, other, {"x": x, "W_h": W_h, "dh": dh}, terms=terms, condition=64)
    return got


def _through(seed, B, T, K, D, dtype=np.float64):
    return arrays(seed, (B, T, K), (D, K), (D, D), (D,), (B, T, D), dtype=dtype)


@check("06.4", "two steps of one channel, on paper")
def _(rnn_backward):
    """x = 0, so all states are 0 and every slope is 1: the second step sends W_h = 3 times its cotangent back."""
    x, W_x, W_h, b, dh = (
        frozen(np.array(v, float)) for v in ([[[0.0], [0.0]]], [[2.0]], [[3.0]], [0.0], [[[1.0], [10.0]]])
    )
    got = parts("rnn_backward", rnn_backward(x, W_x, W_h, b, dh), 4)
    for name, one, right in zip(THROUGH_NAMES, got, ([[[62.0], [20.0]]], [[0.0]], [[0.0]], [41.0])):
        equal(name, one, np.array(right), {"W_x": W_x, "W_h": W_h, "dh": dh})


@check("06.4", "one step, two, and more: every step's weights are the same ones")
def _(rnn_backward):
    for seed, (B, T, K, D) in enumerate(((1, 1, 2, 3), (1, 2, 1, 2), (2, 3, 2, 2), (3, 9, 4, 5))):
        _backward(rnn_backward, *_through(seed, B, T, K, D), terms=T * (B + K + D))


@check("06.4", "only the last state has a cotangent: it reaches every step")
def _(rnn_backward):
    x, W_x, W_h, b, dh = _through(30, 2, 5, 3, 3)
    last = np.zeros_like(dh)
    last[:, -1] = dh[:, -1]
    _backward(rnn_backward, x, W_x, W_h, b, frozen(last), terms=40)


@check("06.4", "float32 stays float32")
def _(rnn_backward):
    _backward(rnn_backward, *_through(31, 2, 4, 3, 4, np.float32), terms=36)


@check("06.4", "finite differences agree")
def _(rnn_backward):
    *inputs, dh = _through(32, 2, 4, 2, 3)
    got = _backward(rnn_backward, *inputs, dh, terms=28)
    _finite_differences(lambda *a: (_run(*a),), inputs, (dh,), got, THROUGH_NAMES)
