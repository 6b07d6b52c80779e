"""Living pictures: what is left without a script, what the scripts compute, and that a hand changes them."""

import base64
import io
import re
from itertools import pairwise, product

import matplotlib
import numpy as np
import pytest
import scipy
import torch
from PIL import Image

import fisherlib as fl
from tests.course.browser import in_browser, needs_browser

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
SCALES = np.array([0, 0.25, 0.5, 1, 2, 4])
SCORES = np.array([0.75, -0.5, 0.0])
PROBABILITIES = torch.softmax(torch.tensor(SCALES[:, None] * SCORES), 1).numpy()
EXACT = np.array([1.3, 1.1, 0.8, -0.5, -3.0, -9.0])
BOUNDS = {"lower": EXACT - 20 * SCALES, "exact": EXACT, "upper": EXACT + 0.8 * SCALES}
AGREEMENT = [1.0, 0.99, 0.97, 0.8, 0.6, 0.3]
SIZES = np.arange(1, 25)
REACHED = 100 * (1 - np.exp(-SIZES / 8))
TWO = {"by concavity": REACHED + 1500 / SIZES**1.6, "by gains": REACHED + 30 * SIZES * np.exp(-SIZES / 8)}
POINTS = RNG.normal(size=(12, 2)) * [1.6, 1.0]
EXAMPLES = [torch.tensor(RNG.normal(size=(RNG.integers(1, 4), 4))) for _ in range(18)]


def true_gains(picks):
    """Row k: every example's gain once the first k picks are known, by the library's formula."""
    V, rows = torch.eye(4, dtype=torch.float64), []
    for pick in picks:
        rows.append([float(fl.fisher.gain(V, X)) for X in EXAMPLES])
        V = V + EXAMPLES[pick].T @ EXAMPLES[pick]
    return np.array(rows)


PICKS = fl.select(fl.TokenFeatures.from_list(EXAMPLES), examples=5).indices.tolist()
GAINS = true_gains(PICKS)
DRAWS = RNG.normal(size=(3, 60, 4))


def student(d):
    half = scipy.stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    return d.mean() - half, d.mean() + half


def all_resamples(d):
    means = [np.mean(drawn) for drawn in product(d, repeat=len(d))]
    return tuple(np.quantile(means, [0.025, 0.975]))


KINDS = {"Student": student, "bootstrap": all_resamples}
PICTURES = {
    "dance": lambda: fl.plotting.seeds_dance(DRAWS, KINDS),
    "softmax": lambda: fl.plotting.living_softmax(SCALES, PROBABILITIES, BOUNDS, AGREEMENT),
    "lazy": lambda: fl.plotting.living_lazy(GAINS),
    "certificate": lambda: fl.plotting.living_certificate(SIZES, REACHED, TWO, at=6),
    "gains": lambda: fl.plotting.living_gains(POINTS, 0.5, [3, 7]),
    "movable": lambda: fl.plotting.movable(POINTS[:6].clip(-2, 2), [0, 1, 2], 0.5),
    "seeds": lambda: fl.plotting.seeds_dance(
        np.random.default_rng(0).normal(size=(4, 60, 5)), {"wide": lambda d: (-1, 1), "narrow": lambda d: (d.min(), 0.1)}
    ),
}
WORDS = 'all("p").map(p => p.textContent)'


@pytest.fixture(scope="module", autouse=True)
def house_style():
    with matplotlib.rc_context():
        fl.plotting.style()
        yield


@pytest.fixture(scope="module")
def shown(house_style):
    return {name: make()._repr_mimebundle_()[0] for name, make in PICTURES.items()}


def film(bundle):
    return Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))


@pytest.mark.parametrize("name", PICTURES)
def test_one_bundle_holds_a_film_a_drawing_and_a_sentence(name, shown):
    bundle = shown[name]
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert sum(map(len, bundle.values())) <= 120_000
    (tag,) = re.findall("<img[^>]*>", bundle["text/html"])
    alt, png = re.search('alt="([^"]+)"', tag)[1], re.search('base64,([^"]+)', tag)[1]
    assert alt.replace("&lt;", "<") == bundle["text/plain"] and png == bundle["image/png"]
    assert "http" not in bundle["text/html"].replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


@pytest.mark.parametrize("name", PICTURES)
def test_the_film_begins_with_the_finished_picture_and_moves(name, shown):
    moving = film(shown[name])
    frames = []
    for k in range(moving.n_frames):
        moving.seek(k)
        frames.append((np.asarray(moving.convert("RGB")), moving.info["duration"]))
    assert 3 <= len(frames) <= 15 and moving.info["loop"] == 0
    assert frames[0][1] == 3000 and sum(ms for _, ms in frames) < 17_000
    assert all((left[0] != right[0]).any() for left, right in pairwise(frames))
    assert all((frame[0][:3] == 255).all() for frame in frames)  # nothing is cut off at the top, and white is white


def test_frames_are_one_size_a_page_wide_at_most_and_light():
    def of(*sizes):
        return [matplotlib.pyplot.figure(figsize=size) for size in sizes]

    for frames in (of((4, 3), (4, 4)), of((7.3, 3)), []):
        with pytest.raises(ValueError, match="expected frames of one size, at most 7.2 inches wide"):
            fl.plotting.living(frames, "", {}, "a sentence")
    with pytest.raises(ValueError, match="expected a picture of at most 120,000 bytes, got 2.*: fewer frames, or less data"):
        fl.plotting.living(of((4, 3)), "", {"much": "x" * 200_000}, "a sentence")
    with pytest.raises(TypeError, match="expected numbers, strings, lists or dicts to draw, got set"):
        fl.plotting.living(of((4, 3)), "", {"a set": {1}}, "a sentence")
    matplotlib.pyplot.close("all")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected rising scales, and for each three probabilities"):
        fl.plotting.living_softmax(SCALES[:-1], PROBABILITIES, BOUNDS, AGREEMENT)
    with pytest.raises(ValueError, match="expected lower <= exact <= upper at every scale"):
        fl.plotting.living_softmax(SCALES, PROBABILITIES, BOUNDS | {"upper": EXACT - 1}, AGREEMENT)
    with pytest.raises(ValueError, match=r"expected gains \[at most 8 picks, at most 40 examples\]"):
        fl.plotting.living_lazy(np.ones((9, 3)))
    with pytest.raises(ValueError, match="expected gains that never rise, got 1, then 2 for example 1"):
        fl.plotting.living_lazy(np.array([[3.0, 1.0], [0.0, 2.0]]))
    with pytest.raises(ValueError, match="expected at most 60 rising sizes"):
        fl.plotting.living_certificate(SIZES[::-1], REACHED, TWO)
    with pytest.raises(ValueError, match="expected bounds above what was reached"):
        fl.plotting.living_certificate(SIZES, REACHED, TWO | {"by gains": REACHED - 1})
    with pytest.raises(ValueError, match="expected at most 30 points in the plane and a prior above 0"):
        fl.plotting.living_gains(POINTS, 0.0)


def test_the_sentence_of_the_lazy_picture_counts_what_greedy_needed():
    (picks, looked, naive) = re.search(
        r"picks, (.*), needed (\d+) evaluations instead of (\d+)", PICTURES["lazy"]().alt
    ).groups()
    assert [int(pick) for pick in picks.split(", ")] == PICKS
    assert int(naive) == sum(len(EXAMPLES) - k for k in range(5)) > int(looked) >= len(EXAMPLES)


@needs_browser
def test_lazy_steps_end_at_greedy_s_picks_and_check_no_more_than_needed(shown, tmp_path):
    picked = 'all("p")[1].textContent'
    step, next_, again = (f'all("button")[{k}].click()' for k in range(3))
    seen = in_browser(
        tmp_path, shown["lazy"]["text/html"], picked, *[next_, picked] * 5, again, picked, step, WORDS, step, WORDS
    )
    said = [text for text in seen if isinstance(text, str)]
    for k, text in enumerate(said[:6]):
        assert text.endswith("picked: " + (", ".join(map(str, PICKS[:k])) or "none"))
    looked = int(re.search(r"needed (\d+)", shown["lazy"]["text/plain"])[1])
    assert said[5].startswith(f"{looked} gains evaluated, {sum(len(EXAMPLES) - k for k in range(5))} without laziness")
    assert said[6] == said[0]  # begun again
    won, checked = (words for words in seen if isinstance(words, list))
    assert won[0] == f"pick 1: example {PICKS[0]} was checked and is still the tallest: it wins"
    tallest = next(i for i in np.argsort(-GAINS[0], kind="stable") if i != PICKS[0])
    old, new = (f"{GAINS[k, tallest]:.2f}".rstrip("0").rstrip(".") for k in (0, 1))
    assert checked[0] == f"pick 2: example {tallest} is the tallest, so it is checked: {old} becomes {new}"


@needs_browser
def test_the_temperature_moves_the_ellipse_of_the_library_s_covariance(shown, tmp_path):
    look = 'document.querySelector(".covariance").getAttribute("points")'
    slides = [f'(slide(document.querySelector("input"), {k}), [{look}, svg.querySelector(".trace").textContent, {WORDS}])'
              for k in range(len(SCALES))]  # fmt: skip
    corners = np.array([[150, 262], [390, 262], [270, 54]])
    shapes = set()
    for k, (edge, trace, words) in enumerate(in_browser(tmp_path, shown["softmax"]["text/html"], *slides)):
        p = PROBABILITIES[k]
        A = fl.fisher.softmax_covariance(torch.tensor(p)).numpy()
        u = np.array([pair.split(",") for pair in edge.split()], dtype=float) - p @ corners
        M = corners.T @ A @ corners
        assert np.abs(np.einsum("ni,ij,nj->n", u, np.linalg.inv(M), u) - 0.25).max() < 1e-3  # half a standard deviation
        assert trace == f"tr A(p) = {np.trace(A):.2f}"
        numbers = [float(text.replace("\N{MINUS SIGN}", "-")) for text in re.findall(r"(?<= )[−\d.]+(?= \()", words[0])]
        assert np.allclose(numbers, [BOUNDS[name][k] for name in ("lower", "exact", "upper")], atol=0.006)
        assert float(words[1].rsplit(" ", 1)[1]) == AGREEMENT[k]
        shapes.add(edge)
    assert len(shapes) == len(SCALES)


@needs_browser
def test_the_certificate_says_for_each_size_what_is_certain(shown, tmp_path):
    dot = 'svg.querySelector("circle").getAttribute("cy")'
    slides = [f'(slide(document.querySelector("input"), {k}), [{WORDS}, {dot}])' for k in range(len(SIZES))]
    seen = in_browser(tmp_path, shown["certificate"]["text/html"], *slides)
    for k, (words, _) in enumerate(seen):
        share = int(100 * REACHED.round(3)[k] / min(values.round(3)[k] for values in TWO.values()))
        assert words[0].startswith(f"{SIZES[k]} examples picked: ") and words[0].endswith(
            f"at least {share} % of the best possible"
        )
    heights = [float(height) for _, height in seen]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == len(SIZES)


@needs_browser
def test_a_touched_point_takes_from_the_others_what_formula_14_says(shown, tmp_path):
    radii = 'all("g circle:nth-of-type(3)").map(c => +c.getAttribute("r"))'
    look = f"[{WORDS}, {radii}, all('rect').map(r => +r.getAttribute('fill-opacity'))]"
    touch, key = "all('g')[3].dispatchEvent(new MouseEvent('click'))", "press(all('g')[7], 'Enter')"
    seen = in_browser(tmp_path, shown["gains"]["text/html"], look, touch, look, key, look, 'all("button")[0].click()', look)
    looks = [found for found in seen if isinstance(found, list)]
    V = 0.5 * np.eye(2)
    first = before = np.einsum("ni,ij,nj->n", POINTS, np.linalg.inv(V), POINTS)
    assert np.allclose(looks[0][1], 9)
    picked = []
    for found, j in zip(looks[1:], (3, 7), strict=False):
        inverse = np.linalg.inv(V)
        after = before - (POINTS @ inverse @ POINTS[j]) ** 2 / (1 + before[j])  # (14)
        picked.append(j)
        rest = np.setdiff1d(np.arange(len(POINTS)), picked)
        lost = 100 * (1 - np.log1p(after) / np.log1p(before))[rest]
        low, high = map(int, re.search(r"between (\d+) % and (\d+) %", found[0][0]).groups())
        assert abs(low - lost.min()) <= 0.5 and abs(high - lost.max()) <= 0.5
        assert np.allclose(np.array(found[1])[rest], 9 * np.sqrt(np.log1p(after) / np.log1p(first))[rest], atol=1e-3)
        assert not np.array(found[1])[picked].any() and sum(found[2]) < sum(looks[0][2])
        V, before = V + np.outer(POINTS[j], POINTS[j]), after
    assert looks[3] == looks[0]  # all let go


@needs_browser
def test_forty_new_studies_are_judged_as_python_judges_them(shown, tmp_path):
    """With the same random numbers: both intervals of each study, and how many hold the truth."""
    u = RNG.random(40 * 4 * 2)
    heads = 'all("svg text").map(t => t.textContent).filter(t => t.includes("hold the truth"))'
    reds = 'all("polyline[stroke=\\"#CC0033\\"]").length'
    same = f"(u => {{ let i = 0; Math.random = () => u[i++]; }})({u.round(12).tolist()})"
    click = 'all("button")[0].click()'
    before, _, _, after, red = in_browser(tmp_path, shown["dance"]["text/html"], heads, same, click, heads, reds)
    first, second = u.round(12).reshape(40, 4, 2).transpose(2, 0, 1)
    fresh = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)
    missed = 0
    for name, make, old, new in zip(KINDS, KINDS.values(), before, after, strict=True):
        then = sum(low <= 0 <= high for low, high in map(make, DRAWS.reshape(-1, 4)))
        now = sum(low <= 0 <= high for low, high in map(make, fresh))
        missed += 40 - now
        assert old.startswith(f"{name}: {then} of {180} hold the truth")
        assert new.startswith(f"{name}: {then + now} of {220} hold the truth")
    assert red == missed > 0


@needs_browser
def test_two_pictures_on_a_page_do_not_meet(shown, tmp_path):
    both = shown["lazy"]["text/html"] + shown["certificate"]["text/html"]
    counts = in_browser(
        tmp_path, both, 'all("svg").length', 'all("img").length', 'all("button").length + all("input").length'
    )
    assert counts == [2, 0, 4]


@needs_browser
def test_who_asked_for_less_motion_gets_none(shown, tmp_path):
    moves = 'getComputedStyle(svg.querySelector("rect")).transitionDuration'
    (calm,) = in_browser(tmp_path, shown["lazy"]["text/html"], moves, options=["--force-prefers-reduced-motion"])
    (usual,) = in_browser(tmp_path, shown["lazy"]["text/html"], moves)
    assert calm == "0s" and usual.startswith("0.5s")


@needs_browser
@pytest.mark.parametrize("name", ["lazy", "movable"])
def test_a_key_in_a_picture_is_no_command_of_the_page(name, shown, tmp_path):
    """JupyterLab moves to the next cell at an arrow, unless the picture keeps the key for itself."""
    listen = 'globalThis.heard = 0, document.addEventListener("keydown", () => { heard += 1; }), heard'
    keys = 'press(document.querySelector("button, g[tabindex]"), "ArrowDown"), heard'
    outside = 'press(document.body, "ArrowDown"), heard'
    assert in_browser(tmp_path, shown[name]["text/html"], listen, keys, outside) == [0, 0, 1]


@needs_browser
def test_new_studies_are_counted_and_hold_the_truth_as_often_as_notebook_05_says(shown, tmp_path):
    heads = 'all("text").map(t => t.textContent).filter(t => t.includes("hold the truth"))'
    drawn = '[...document.querySelectorAll("polyline")].filter(p => p.getAttribute("stroke") === "#CC0033").length'
    seen = in_browser(tmp_path, shown["seeds"]["text/html"], heads, *["all('button')[0].click()"] * 60, heads, drawn)
    (before, after), red = [of for of in seen if isinstance(of, list)], seen[-1]
    counts = [[int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= of| hold)", text)] for text in before + after]
    assert [studies for _, studies in counts] == [240, 240, 240 + 60 * 40, 240 + 60 * 40] and red > 0
    student, bootstrap = ((counts[k + 2][0] - counts[k][0]) / (60 * 40) for k in (0, 1))
    assert 0.92 < student < 0.98 and 0.78 < bootstrap < 0.88
