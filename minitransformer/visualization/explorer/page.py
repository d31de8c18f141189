"""One HTML file with everything in it: markup, style, script and data; it asks the network for nothing.

Data travels as base64 in blocks that no browser executes, so a token's text never meets the HTML parser; the page
writes tokens with `textContent` only. A content security policy names the one script by its hash and
forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources

SCRIPTS = (
    "data.js",
    "colours.js",
    "state.js",
    "overview.js",
    "matrix.js",
    "tokens.js",
    "details.js",
    "lens.js",
    "controls.js",
)


def _read(name):
    return (resources.files(__package__) / "web" / name).read_text(encoding="utf-8")


def assemble(title, blocks):
    """The page with this title around these {id: base64 text} blocks."""
    script = "(() => {\n'use strict';\n" + "\n".join(_read(name) for name in SCRIPTS) + "\n})();"
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    data = "\n".join(
        f'<script type="application/octet-stream" id="{name}">{text}</script>' for name, text in blocks.items()
    )
    page = _read("page.html")
    parts = {"POLICY": policy, "TITLE": html.escape(title), "STYLE": _read("style.css"), "DATA": data, "SCRIPT": script}
    pieces = page.split("%%")  # literal text and slot names, by turns: what is inserted is never scanned again
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def json_bytes(value):
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
