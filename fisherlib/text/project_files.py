"""Files of a software project: four kinds of text that are not Shakespeare, for pools in which something is rare.

The files are Django's (BSD-3-Clause). They are read as text; nothing in them is run or imported.
"""

import ast
import itertools
import re
import textwrap

from fisherlib import assets

SYSTEM_LINE = "Continue the file."
# Our choice. Whole files are held out, so that no file is on both sides.
FILES = {
    "python": {
        "train": ("paginator.py", "request.py", "response.py", "text.py", "validators.py"),
        "test": ("formsets.py", "html.py", "signing.py"),
    },
    "documentation": {
        "train": ("pagination.txt", "performance.txt", "security.txt", "settings.txt", "signals.txt"),
        "test": ("overview.txt", "tutorial03.txt", "tutorial04.txt"),
    },
    "html": {
        "train": ("base.html", "change_form.html", "change_list.html", "change_password.html", "default_urlconf.html",
                  "fieldset.html", "index.html", "stacked.html", "tabular.html"),
        "test": ("app_list.html", "csrf_403.html", "login.html", "technical_500.html"),
    },
    "javascript": {
        "train": ("SelectFilter2.js", "actions.js", "core.js", "inlines.js"),
        "test": ("SelectBox.js", "calendar.js", "urlify.js"),
    },
}  # fmt: skip
# Not looked at until the recipe was chosen: the pools that it was confirmed on are made of them.
UNSEEN = {
    "guide": {
        "train": ("cache.txt", "default.txt", "migrations.txt", "modelforms.txt", "models.txt", "queries.txt"),
        "test": ("email.txt", "sessions.txt", "transactions.txt"),
    },
    "code": {
        "train": ("client.py", "defaulttags.py", "expressions.py", "fields.py", "options.py", "query.py"),
        "test": ("deletion.py", "multipartparser.py", "widgets.py"),
    },
    "stylesheet": {
        "train": ("base.css", "changelists.css", "dashboard.css", "widgets.css"),
        "test": ("forms.css", "responsive.css"),
    },
}


def chunks(domain: str) -> tuple[list[dict], list[dict]]:
    """Training and test examples of one domain: some lines of a file as the prompt, the next as the response.

    Raises `ValueError` for another domain, `AssetError` if the files cannot be fetched.
    """
    domains = FILES | UNSEEN
    if domain not in domains:
        raise ValueError(f"expected one of the domains {tuple(domains)}, got {domain!r}")
    folder = assets.fetch("django")
    seen: set[str] = set()
    sides: dict[str, list[dict]] = {}
    for side in ("test", "train"):  # the test side first, so that lines which occur in both are dropped from training
        sides[side] = []
        for name in domains[domain][side]:
            for before, after in itertools.pairwise(split((folder / name).read_text(encoding="utf-8"))):
                key = " ".join(after.split())
                if key in seen:
                    continue
                seen.add(key)
                sides[side].append({"system": SYSTEM_LINE, "prompt": before, "response": after, "document": name})
    return sides["train"], sides["test"]


def split(text: str, *, shortest: int = 90, longest: int = 240) -> list[str]:
    """Whole lines, without blank ones, in chunks of `shortest` to `longest` characters. What is longer is dropped."""
    found, lines = [], []
    for line in filter(str.strip, text.splitlines()):
        lines.append(re.sub(r"\s+$", "", line))
        if len("\n".join(lines)) >= shortest:
            found.append("\n".join(lines))
            lines = []
    return [chunk for chunk in found if len(chunk) <= longest]


def docstrings(*, longest: int = 900) -> tuple[list[dict], list[dict]]:
    """Training and test examples: a function as the prompt, the first line of its docstring as the response.

    Of the Python files of both lists, by whole file as in `FILES` and `UNSEEN`; parsed, never run or imported. The docstring
    is taken out of the prompt. Functions of more than `longest` characters are left out, and of equal answers all but one.
    Raises `AssetError` if the files cannot be fetched.
    """
    folder = assets.fetch("django")
    seen: set[str] = set()
    sides: dict[str, list[dict]] = {"test": [], "train": []}  # so that what both have is dropped from training
    for side, rows in sides.items():
        for name in (*FILES["python"][side], *UNSEEN["code"][side]):
            for function, line in _documented((folder / name).read_text(encoding="utf-8")):
                if len(function) > longest or line.lower() in seen:
                    continue
                seen.add(line.lower())
                prompt = f"Say in one line what this function does.\n\n{function}"
                rows.append({"system": "Document the code.", "prompt": prompt, "response": line, "document": name})
    return sides["train"], sides["test"]


def _documented(text: str) -> list[tuple[str, str]]:
    """Each function with a docstring: its source without that, and the first line."""
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        line = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ").strip()
        if line and node.end_lineno is not None:
            head = lines[node.lineno - 1 : node.body[0].lineno - 1]
            rest = lines[node.body[1].lineno - 1 : node.end_lineno]
            found.append((textwrap.dedent("\n".join([*head, *rest])), line))
    return found
