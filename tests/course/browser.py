"""A real browser for the tests of living pictures: Chromium without a window, if the machine has one."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, to touch a living picture")

# What a step may call; what it returns is written down.
PAGE = """<!doctype html><meta charset="utf-8"><body>{html}<script>
const svg = document.querySelector("svg"), all = name => [...document.querySelectorAll(name)];
const press = (at, key) => at.dispatchEvent(new KeyboardEvent("keydown", {{key, bubbles: true}}));
const slide = (at, value) => {{ at.value = value; at.dispatchEvent(new Event("input")); }};
const touch = (at, kind, x, y) => at.dispatchEvent(new PointerEvent(kind, {{clientX: x, clientY: y, pointerId: 1}}));
Element.prototype.setPointerCapture = () => {{}};  // there is no pointer behind the events of a test
const steps = [{steps}];
onload = () => {{  // with all pictures
  const said = JSON.stringify(steps.map(step => step() ?? null));
  document.body.append(Object.assign(document.createElement("pre"), {{id: "answer", textContent: said}}));
}};
</script>"""


def in_browser(folder: Path, html: str, *steps: str, options: Sequence[str] = ()) -> list:
    """The values of JavaScript expressions, one after the other, in a page that shows `html`. `folder` is scratch space."""
    page = folder / "page.html"
    page.write_text(PAGE.format(html=html, steps=",".join(f"() => ({step})" for step in steps)), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*command, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    answer = re.search('<pre id="answer">(.*?)</pre>', done.stdout, re.S)
    assert answer, done.stderr[-2000:]
    return json.loads(unescape(answer[1]))
