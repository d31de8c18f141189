"""The attention explorer: one HTML file that opens from disk and shows what each head does.

explore(attention, tokens).save("heads.html")                     # (L, H, Tq, Tk), one model
explore(before, tokens, versus=after, names=("float32", "int8"))  # two models, and their difference
explore({0: a0, 100: a1, 500: a2}, tokens)                        # training steps, with a slider
explore(cross, words, ImagePatches(image, 14, 14))                # words that look at an image
"""

from .axes import AudioFrames, ImagePatches
from .building import Explorer, explore
from .extras import LogitLens, Question
from .sources import stitch

__all__ = ["AudioFrames", "Explorer", "ImagePatches", "LogitLens", "Question", "explore", "stitch"]
