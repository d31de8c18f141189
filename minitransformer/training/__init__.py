"""Training: the loop, its history, checkpoints that survive what goes wrong, and the way back from them.

    trainer = assemble(text, CharTokenizer.train(text), TrainingConfig(steps=500), folder="out/run")
    trainer.run()
    model, tokenizer, checkpoint = load_model("out/run")

`assemble` makes the trainer of a new GPT; `Trainer` takes a model and token ids of your own.
"""

from .assembly import assemble
from .checkpoints import Checkpoint, CheckpointError
from .config import TrainingConfig
from .history import History
from .progress import Progress
from .restore import find, last_run, load_model, load_weights
from .trainer import Trainer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "History",
    "Progress",
    "Trainer",
    "TrainingConfig",
    "assemble",
    "find",
    "last_run",
    "load_model",
    "load_weights",
]
