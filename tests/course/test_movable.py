"""The picture of notebook 01 that a hand moves: what is shown without its script, and what the script computes."""

import itertools

import numpy as np
import pytest

from fisherlib.course import plotting
from tests.course.browser import in_browser, needs_browser

POINTS = np.array([[-0.7, 0.0], [1.8, -1.1], [0.8, -0.3], [-0.2, 0.6], [-1.6, 0.6], [0.0, -0.4]])
SEEN = """[all("p").map(p => p.textContent), svg.querySelector("polygon").getAttribute("points"),
  all(".gain").map(t => t.textContent), all(".next").map(c => c.getAttribute("visibility")).indexOf("visible")]"""
DOT = 'all("g")[{}]'


def area(V):
    return np.pi / np.sqrt(np.linalg.det(V))


def test_without_its_script_it_is_a_sentence_with_the_area():
    shown = plotting.movable(POINTS, (1, 3, 4))
    assert shown._repr_mimebundle_() == plotting.movable(POINTS, (1, 3, 4))._repr_mimebundle_()  # the same each time
    assert f"area {area(POINTS[[1, 3, 4]].T @ POINTS[[1, 3, 4]]):.2f}" in shown.alt and "1, 3, 4" in shown.alt


def test_points_that_leave_no_ellipse_are_refused():
    for points, chosen in ((POINTS, [0]), (POINTS, []), (np.ones((4, 2)), [0, 1]), (np.eye(11)[:, :2], [0, 1])):
        with pytest.raises(ValueError, match="expected at most 10 points, and a choice of them that spans the plane"):
            plotting.movable(points, chosen)
    with pytest.raises(ValueError, match="expected points within 2.6 to each side and 2.1 up and down"):
        plotting.movable(2 * POINTS, [0, 1])


def expected(points, chosen, prior):
    """What must stand below and in the picture: from the definitions, by NumPy."""
    V = prior * np.eye(2) + points[chosen].T @ points[chosen]
    of = {k: np.log1p(points[k] @ np.linalg.solve(V, points[k])) for k in range(len(points)) if k not in chosen}
    next_ = max(of, key=of.get)
    sets = itertools.combinations(range(len(points)), len(chosen))
    least = min(area(prior * np.eye(2) + points[list(c)].T @ points[list(c)]) for c in sets)
    said = (
        f"{len(chosen)} chosen: log det {np.linalg.slogdet(V)[1]:.2f}, area {area(V):.2f}; "
        f"greedy would take point {next_}: it adds {of[next_]:.2f}"
    )
    best = f"the smallest area that {len(chosen)} of these points can leave: {least:.2f}"
    return V, [said, best], [f" +{of[k]:.2f}" if k in of else "" for k in range(len(points))], next_


@needs_browser
@pytest.mark.parametrize("prior", [0.0, 0.5])
def test_the_script_computes_what_the_library_does(prior, tmp_path):
    html = plotting.movable(POINTS, (1, 3, 4), prior)._repr_mimebundle_()[0]["text/html"]
    flip, up = f"press({DOT.format(0)}, ' ')", f"press({DOT.format(1)}, 'ArrowUp')"
    clear = f"[0, 1, 3].forEach(k => press({DOT.format('k')}, 'Enter'))"
    seen = in_browser(tmp_path, html, SEEN, flip, SEEN, up, SEEN, clear, SEEN, 'document.querySelector("img")')
    raised = POINTS.copy()
    raised[1, 1] += 0.1
    for found, points, chosen in zip(
        seen[:6:2], (POINTS, POINTS, raised), ([1, 3, 4], [0, 1, 3, 4], [0, 1, 3, 4]), strict=True
    ):
        V, said, gains, next_ = expected(points, chosen, prior)
        assert [found[0], found[2], found[3]] == [said, gains, next_]
        across = np.array([pair.split(",") for pair in found[1].split()], dtype=float)
        u = (across - [250, 201.5]) / [440 / 5.2, -355 / 4.2]  # from pixels, which run downwards
        assert np.abs((u @ V * u).sum(1) - 1).max() < 1e-9  # on the ellipse
    unknown = "1 chosen: one direction is unknown, the ellipse is infinitely long"
    assert (seen[6][0] == [unknown, ""] and seen[6][3] == -1) if prior == 0 else "log det" in seen[6][0][0]
    assert seen[7] is None  # the drawing has replaced the film


@needs_browser
def test_a_click_chooses_and_a_drag_moves(tmp_path):
    html = plotting.movable(POINTS, (1, 3, 4))._repr_mimebundle_()[0]["text/html"]
    click = f"(touch({DOT.format(0)}, 'pointerdown', 50, 50), touch({DOT.format(0)}, 'pointerup', 50, 50))"
    drag = click.replace("[0]", "[2]").replace("50, 50), t", "50, 50), touch(all('g')[2], 'pointermove', 250, 200), t")
    before, _, after, _, dragged = in_browser(tmp_path, html, SEEN, click, SEEN, drag, SEEN)
    assert after[0] == expected(POINTS, [0, 1, 3, 4], 0.0)[1] and after != before
    assert dragged[1] == after[1] and dragged[2] != after[2]  # who is not chosen changes gains, not the ellipse
