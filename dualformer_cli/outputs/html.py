"""An HTML page that needs nothing else: no server, no network, no framework.

Names and paths come from outside. Text enters a page through `element` and `data` alone, which escape it, and the
page's own policy lets a browser run no other script and load nothing but what the page says.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable

from dualformer_cli.system.words import printable

STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; --blue: #2f74c0; --red: #c8371f; }
@media (prefers-color-scheme: dark) { :root { --faint: #999; --blue: #6aa5e6; --red: #f0795f; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; }
@media (max-width: 30rem) { body { margin: 1rem auto; padding: 0 .7rem; } .tile { padding: .4rem .7rem; } }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.4rem; font-weight: 600; } .faint { color: var(--faint); font-size: .87rem; }
.warning { border-left: .3rem solid var(--red); padding: .4rem 1rem; background: #c8371f18; }
"""
"""Colours, headings and boxes of every page, light and dark."""


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """Return one element: markup among the children stays, anything else becomes escaped text; None is left out.

    Attributes: `class_` is class, `data_value` data-value; True stands without a value, None is left out.
    """
    written = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None
    ]
    inside = [child if isinstance(child, Html) else _escaped(child) for child in children if child is not None]
    end = "" if tag in ("meta", "img", "input") else f"</{tag}>"
    return Html(f"<{tag}{''.join(written)}>{''.join(inside)}{end}")


def joined(parts: Iterable[Html]) -> Html:
    """Return markup with one part a line."""
    return Html("\n".join(parts))


def tile(value: str, name: str, note: str | None = None) -> Html:
    """Return a box with a large number."""
    faint = None if note is None else element("div", note, class_="faint")
    return element("div", element("b", value), name, faint, class_="tile")


def head(title: str, style: str, script: str, *, sources: str = "") -> Html:
    """Return the head of a page.

    Args:
        title: in the browser's tab.
        style, script: the only ones that the browser accepts in the page; the script's element is not in the head.
        sources: more directives of the policy, each with "; " after it.
    """
    policy = (
        f"default-src 'none'; img-src data:; {sources}style-src {_hash_source(style)}; "
        f"script-src {_hash_source(script)}; base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(style)),
    )


def data(value: object) -> Html:
    """Return a value as JSON that no browser takes for markup, to be put into a script element."""
    return Html(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _escaped(value: object) -> str:
    return html.escape(printable(str(value)))
