"""The picture of notebook 01 that a hand moves: what is shown without its script, and what the script computes."""

import base64
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from fisherlib.course import plotting

POINTS = np.array([[-0.7, 0.0], [1.8, -1.1], [0.8, -0.3], [-0.2, 0.6], [-1.6, 0.6], [0.0, -0.4]])
# As much of a browser as the script needs: elements that remember what was said to them, one for each point.
BROWSER = """
const element = () => ({attributes: {}, setAttribute(key, value) { this.attributes[key] = value; }, querySelector: element});
const found = {".said": element(), ".best": element(), polygon: element(), svg: element()};
const dots = Array.from({length: COUNT}, element);
const box = {querySelector: name => found[name], querySelectorAll: () => dots};
globalThis.document = {currentScript: {parentElement: box}};
const press = (k, key) => dots[k].onkeydown({key, preventDefault() {}, stopPropagation() {}});
const say = () => console.log(JSON.stringify([found[".said"].textContent, found[".best"].textContent,
  found.polygon.attributes.points]));
"""


def area(X):
    return np.pi / np.sqrt(np.linalg.det(X.T @ X))


def test_without_its_script_it_is_a_finished_picture_with_a_sentence():
    shown = plotting.movable(POINTS, (1, 3, 4))
    bundle = shown._repr_mimebundle_()
    assert bundle == plotting.movable(POINTS, (1, 3, 4))._repr_mimebundle_()  # committed, so the same each time
    (image,) = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', bundle["text/html"])
    assert image == (bundle["text/plain"], bundle["image/png"])
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert f"area {area(POINTS[[1, 3, 4]]):.2f}" in shown.alt and "1, 3, 4" in shown.alt
    assert "http" not in shown.html and len(shown.html) < 60_000


def test_points_that_leave_no_ellipse_are_refused():
    for points, chosen in ((POINTS, [0]), (POINTS, []), (np.ones((4, 2)), [0, 1]), (np.eye(11)[:, :2], [0, 1])):
        with pytest.raises(ValueError, match="expected at most 10 points, and a choice of them that spans the plane"):
            plotting.movable(points, chosen)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the script of a picture")
def test_the_script_computes_what_the_library_does():
    script = re.search("<script>(.*)</script>", plotting.movable(POINTS, (1, 3, 4)).html, re.S)[1]
    moves = "say(); press(0, ' '); say(); press(1, 'ArrowUp'); say(); [0, 1, 3].map(k => press(k, 'Enter')); say();"
    code = BROWSER.replace("COUNT", str(len(POINTS))) + script + moves
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    raised = POINTS.copy()
    raised[1, 1] += 0.1
    *steps, last = map(json.loads, done.stdout.splitlines())
    for (said, best, edge), points, chosen in zip(
        steps, (POINTS, POINTS, raised), ([1, 3, 4], [0, 1, 3, 4], [0, 1, 3, 4]), strict=True
    ):
        X, k = points[chosen], len(chosen)
        assert said == f"{k} chosen: log det {np.linalg.slogdet(X.T @ X)[1]:.2f}, area {area(X):.2f}"
        least = min(area(points[list(c)]) for c in itertools.combinations(range(len(points)), k))
        assert best == f"the best {k} of these points leave an area of {least:.2f}"
        u = np.array([pair.split(",") for pair in edge.split()], dtype=float) * [1, -1] / 100  # pixels, downwards
        assert np.abs((u @ X.T @ X * u).sum(1) - 1).max() < 1e-9  # on the ellipse
    assert last == ["1 chosen: one direction is unknown, the ellipse is infinitely long", "", ""]
