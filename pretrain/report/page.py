"""The page: one HTML file that holds everything it needs and may load nothing."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

_FILES = Path(__file__).with_name("page")
_SCRIPTS = ("data.js", "chart.js", "view.js", "page.js")


def render(data: dict[str, Any], watched: bool = False) -> str:
    """The whole file from `page_data`; `watched`: it asks the server that gave it for newer data."""
    style, script = read("page.css"), "\n".join(read(name) for name in _SCRIPTS)
    runs = len(data["runs"])
    filled = {
        "policy": policy(style, script, watched),
        "title": html.escape(f"{runs} runs compared" if runs != 1 else data["runs"][0]["name"]),
        "style": style,
        "data": as_json(data | {"watched": watched}),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: filled[place[1]], read("page.html"))


def policy(style: str, script: str, watched: bool) -> str:
    """The Content-Security-Policy: this style and this script by their hashes, nothing from anywhere else, no HTML out of text."""
    asks = "; connect-src 'self'" if watched else ""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}{asks}; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def as_json(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element, whatever the texts in it hold."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def read(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
