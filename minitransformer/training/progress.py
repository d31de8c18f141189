"""The training bar: steps, tokens per second, loss, time left. Without a terminal: a plain line now and then."""

from __future__ import annotations

__all__ = ["Progress"]

LINES = 20  # about so many plain lines a run


class Progress:
    """Shows a run on a rich console (None: shows nothing). Use as a context manager.

    `print(...)` writes above the bar. The loss shown is a running mean over some 20 steps.
    """

    def __init__(self, console, steps: int, done: int = 0):
        self.console, self.steps, self.done, self.first = console, steps, done, done
        self.bar, self.loss = None, None
        self.tokens, self.seconds = 0, 0.0

    def __enter__(self):
        if self.console is not None and self.console.is_terminal:
            self.bar = self._new_bar()
            self.task = self.bar.add_task("", total=self.steps, completed=self.done, loss="", rate="")
            self.bar.start()
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _new_bar(self):
        from rich import progress

        return progress.Progress(
            progress.TextColumn("step {task.completed:,}/{task.total:,}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[loss]}", style="bold"),
            progress.TextColumn("{task.fields[rate]}", style="dim"),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("left", style="dim"),
            console=self.console,
            expand=self.console.width <= 100,
            refresh_per_second=8,
        )

    def advance(self, loss: float, tokens: int, seconds: float) -> None:
        """One step is done: its loss, the tokens that it saw, and what it took."""
        self.done, self.tokens_a_step = self.done + 1, tokens
        # A running sum that forgets: what a pause or a busy machine did long ago does not colour the rate of now.
        self.tokens = 0.98 * self.tokens + tokens
        self.seconds = 0.98 * self.seconds + seconds
        # A plain mean at first: an exponential mean that starts at the first loss would lag behind it.
        weight = max(1 / 20, 1 / (self.done - self.first))
        self.loss = loss if self.loss is None else self.loss + weight * (loss - self.loss)
        if self.bar is not None:
            self.bar.update(
                self.task, completed=self.done, loss=f"loss {self.loss:.3f}", rate=f"{self.rate():,.0f} tok/s"
            )
        elif self.console is not None and (self.done % max(1, self.steps // LINES) == 0 or self.done == self.steps):
            self.print(self._line())

    def evaluated(self, step: int, loss: float, bits: float | None = None) -> None:
        """A validation loss is known, and perhaps bits per character."""
        text = f"step {step:>6,}  validation loss {loss:.3f}"
        self.print(text + (f"  ({bits:.2f} bits per character)" if bits is not None else ""), style="cyan")

    def rate(self) -> float:
        """Tokens per second over the last 50 steps or so, validation not counted."""
        return self.tokens / max(self.seconds, 1e-9)

    def _line(self):
        seconds = (self.steps - self.done) * self.tokens_a_step / max(self.rate(), 1e-9)
        left = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
        return f"step {self.done:>6,}/{self.steps:,}  loss {self.loss:.3f}  {self.rate():>7,.0f} tokens/s  {left} left"

    def print(self, *objects, **options) -> None:
        """Write above the bar."""
        if self.console is not None:
            self.console.print(*objects, **options)
