"""The parts of a page: text that is safe, tables, bars, and how it looks."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what no HTML may hold


def safe(text: Any) -> str:
    """Text for HTML: what came with the rows can end no tag and begin no script."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def as_section(head: str, *parts: str) -> str:
    name = head.split(",")[0].lower().replace(" ", "-")
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{head}</h2>{"".join(parts)}</section>'


def as_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", numbers: bool = True, html: bool = False
) -> str:
    """A table whose first column names its rows; `html`: the cells are HTML already."""
    clean = str if html else safe
    kind = ' class="number"' if numbers else ""
    top = (
        "".join(f'<th scope="col"{kind if k else ""}>{safe(name)}</th>' for k, name in enumerate(head)) if any(head) else ""
    )
    body = "".join(
        f'<tr><th scope="row"><bdi>{clean(name)}</bdi></th>{"".join(f"<td{kind}>{clean(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    named = f"<caption>{safe(caption)}</caption>" if caption else ""
    head_row = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f'<div class="wide" tabindex="0"><table>{named}{head_row}<tbody>{body}</tbody></table></div>'


def bar(share: float) -> str:
    return f'{of_hundred(share)}<span class="bar" style="width:{100 * min(share, 1.0):.1f}%"></span>'


def of_hundred(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def percent(part: float | int | np.integer, whole: float | int) -> str:
    return of_hundred(part / whole) if whole else "–"


STYLE = """
:root{color-scheme:light}
body{margin:0 auto;max-width:60rem;padding:1rem;background:#fff;color:#1a1a1a;font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-top:1px solid #ccc;padding-top:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.35rem .6rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
tbody th{font-weight:400;overflow-wrap:anywhere;min-width:5rem}li{overflow-wrap:anywhere}
th.number{text-align:right}td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.bar{display:block;height:.4rem;background:#0072b2;min-width:1px;margin:.2rem 0 0 auto}
svg{width:100%;height:auto;font:14px system-ui,sans-serif}
ol{padding-left:1.6rem}blockquote{margin:.2rem 0 1rem;padding:.4rem .8rem;border-left:4px solid #bbb;background:#f6f6f6;
white-space:pre-wrap;overflow-wrap:anywhere}.why{margin:0;color:#444}
.no{color:#6b6b6b}.h1{background:#fff1c9}.h2{background:#ffe08a;border-bottom:1px solid #7a4b00}
.h3{background:#ffc95c;border-bottom:2px solid #7a4b00}.h4{background:#ffb12e;border-bottom:3px solid #7a4b00}
footer{margin-top:2rem;color:#555}
@media(max-width:30rem){th,td{padding:.3rem .25rem;font-size:.85rem}}
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main><h1>{title}</h1>
{body}
</main><footer>fisherlib {version}</footer></body></html>
"""
