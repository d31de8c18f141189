"""Fonts for labels in any script: which installed fonts a text needs, and escapes for what none of them has.

matplotlib draws an empty box for a character that its font lacks. Here the installed fonts are asked first; a character
that no font has is shown as its escape (\\u4f60), and a warning says so once.
"""

from __future__ import annotations

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
_found = {}  # character -> family that draws it, or None: fonts are searched once a character
_warned = set()


def families_with(characters):
    """{character: the family of an installed font that draws it, or None}, in the order of `_installed`."""
    unknown = set(characters) - set(_found)
    for family, path in _installed() if unknown else ():
        drawn = unknown & _characters(path)
        _found.update(dict.fromkeys(drawn, family))
        unknown -= drawn
        if not unknown:
            break
    _found.update(dict.fromkeys(unknown))
    return {char: _found[char] for char in characters}


def _installed():
    """(family, path) of the upright fonts, in the order in which they are asked."""
    from matplotlib import font_manager

    order = {name: i for i, name in enumerate((_BASE, *_PREFERRED))}
    entries = [e for e in font_manager.fontManager.ttflist if e.style == "normal" and "Last Resort" not in e.name]
    entries.sort(key=lambda e: (order.get(e.name, len(order)), e.name, abs(int(e.weight) - 400)))
    return [(entry.name, entry.fname) for entry in entries]


def _characters(path):
    """What a font file draws; nothing when matplotlib cannot read or scale it (colour emoji are bitmaps)."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
        return {chr(code) for code in font.get_charmap()} if font.scalable else set()
    except (OSError, RuntimeError):
        return set()


def drawable(texts):
    """Texts that can be drawn -> (texts with escapes for undrawable characters, families to fall back on)."""
    characters = sorted({c for text in texts for c in text if not (c.isascii() and c.isprintable())})
    found = families_with(characters)
    families = list(dict.fromkeys(family for family in found.values() if family not in (None, _BASE)))
    missing = {char for char, family in found.items() if family is None}
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
