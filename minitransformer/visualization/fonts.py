"""Fonts for labels in any script: which installed fonts a text needs, and escapes for what none of them has.

matplotlib draws an empty box for a character that its font lacks. Here the installed fonts are asked first; a character
that no font has is shown as its escape (\\u4f60), and a warning says so once.
"""

from __future__ import annotations

import functools
import warnings

from .token_text import columns, elide, escape, token_label

_BASE = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Hebrew, Arabic, arrows, control pictures
# Asked before the rest of the installed fonts, so that a common face wins over a decorative one.
_PREFERRED = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "Noto Sans SC",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Segoe UI Symbol",
    "Symbola",
    "Arial Unicode MS",
)
_warned = set()


@functools.lru_cache(maxsize=256)
def _characters(path):
    """The code points that a font file draws; none when matplotlib cannot read or scale it (colour emoji bitmaps)."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@functools.lru_cache(maxsize=1024)
def _family_with(char):
    """The family of an installed font that draws this character, or None."""
    from matplotlib import font_manager

    order = {name: i for i, name in enumerate((_BASE, *_PREFERRED))}
    entries = [e for e in font_manager.fontManager.ttflist if e.style == "normal" and "Last Resort" not in e.name]
    for entry in sorted(entries, key=lambda e: (order.get(e.name, len(order)), e.name, abs(int(e.weight) - 400))):
        if ord(char) in _characters(entry.fname):
            return entry.name
    return None


def drawable(texts):
    """Texts that can be drawn -> (texts with escapes for undrawable characters, families to fall back on)."""
    characters = {c for text in texts for c in text if not (c.isascii() and c.isprintable())}
    families, missing = [], set()
    for char in sorted(characters):
        family = _family_with(char)
        if family is None:
            missing.add(char)
        elif family not in (_BASE, *families):
            families.append(family)
    fresh = missing - _warned
    if fresh:
        _warned.update(fresh)
        example, others = min(fresh), f" and {len(fresh) - 1} more characters" if len(fresh) > 1 else ""
        warnings.warn(
            f"no installed font draws {example!r}{others}: shown as escapes like {escape(example)}. "
            "A font that has them (Noto Sans CJK for Chinese) shows them as they are.",
            stacklevel=4,
        )
    return ["".join(escape(c) if c in missing else c for c in text) for text in texts], families


def drawable_labels(labels, width):
    """Tokens as labels that can be drawn, at most `width` columns -> (labels, families)."""
    labels, families = drawable([token_label(label, width) for label in labels])
    return [elide(label, width) if columns(label) > width else label for label in labels], families
