"""The page about a selection: what it says is so, rows cannot get out of their place, and a browser shows it whole."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

import fisherlib as fl
from fisherlib.report import report
from tests.course.browser import BROWSER, needs_browser

EVIL = "<script>alert(1)</script>"
RTL = "שלום עולם 🦜 مرحبا"
VOID = {"meta", "br", "line", "circle", "polyline"}


@pytest.fixture(scope="module")
def pool():
    """40 rows: five near-copies, a script, right-to-left text, one row that is empty."""
    topics = [f"{word} number {i}" for i in range(8) for word in ("rivers", "engines", "bread", "maps", "glass")]
    rng = np.random.default_rng(0)
    answers = ["".join(rng.choice(list("abcdefghij klmnop"), 60 + 20 * (i % 4))) for i in range(len(topics))]
    rows = [{"prompt": f"Say something about {t}.", "response": a} for t, a in zip(topics, answers, strict=True)]
    groups_of_words = "_".join(["unbreakable"] * 12)  # in a name: it must not push the page wide
    for i in range(1, 6):
        rows[i] = {"prompt": rows[0]["prompt"], "response": rows[0]["response"] + "!" * i}
    rows[7] = {"prompt": EVIL, "response": f"{EVIL} \x00 and {RTL}"}
    blocks = [rng.standard_normal((1 + i % 4, 4)) for i in range(len(rows))]
    blocks[7] *= 10  # picked first
    return (
        rows,
        fl.TokenFeatures.from_list(blocks),
        [EVIL if i % 5 == 2 else groups_of_words if i == 3 else "common" for i in range(len(rows))],
    )


class Page(HTMLParser):
    """What stands in a page, and whether every tag is closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(pool, tmp_path_factory):
    rows, features, groups = pool
    selection = fl.select(features, tokens=30)
    out = tmp_path_factory.mktemp("report") / "page.html"
    reasons = fl.explain(features, selection)
    assert report(selection, rows, features, out=out, groups=groups, seen=rows[:3], reasons=reasons) == out
    return selection, out


def test_what_came_with_the_rows_stays_text(page):
    text = page[1].read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "\x00" not in text
    seen = Page(text)
    assert EVIL in seen.said and RTL in seen.said  # and it can be read
    assert ("blockquote", "dir", "auto") in seen.attributes


def test_it_needs_no_network_and_says_its_language(page):
    seen = Page(page[1].read_text(encoding="utf-8"))
    assert ("html", "lang", "en") in seen.attributes and "title" in seen.tags
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert not [value for _, name, value in seen.attributes if name in ("src", "href") or "http" in (value or "")]
    assert "th" in seen.tags and {value for _, name, value in seen.attributes if name == "scope"} == {"col", "row"}


def test_its_numbers_are_those_of_the_selection(page, pool):
    selection, out = page
    rows, features, groups = pool
    seen = Page(out.read_text(encoding="utf-8")).said
    assert f"{len(rows)} in the pool {len(selection)} picked" in seen
    assert f"{features.lengths.sum():,} in the pool" in seen and "30 tokens" in seen
    assert f"at least {np.floor(selection.certificate * 1000) / 10:.1f} %" in seen
    assert f"The bend is at pick {selection.knee()}" in seen and f"{selection.objective:,.1f} nats" in seen
    first = fl.selectors.near_duplicates(rows_of(rows))
    assert (first != np.arange(len(rows))).sum() == 5
    assert "Rows of the pool that are near-copies of an earlier row 5 12.5 %" in seen
    lengths, labels = features.lengths.numpy(), np.array(groups)
    before = 100 * lengths[labels == "common"].sum() / lengths.sum()
    picked = selection.indices
    after = 100 * lengths[picked][labels[picked] == "common"].sum() / lengths[picked].sum()
    rows_before, rows_after = 100 * (labels == "common").mean(), 100 * (labels[picked] == "common").mean()
    assert f"common {before:.1f} % {after:.1f} % {rows_before:.1f} % {rows_after:.1f} %" in seen
    assert f"Row 7: gain {selection.gains[0]:.2f} nats" in seen
    assert "most like pick 1 (cosine" in seen


def test_tokens_are_shaded_by_what_they_added_and_the_asked_quota_stands_beside_what_it_got(tmp_path):
    from tests.attack import things

    tokenizer = things.tokenizer(None)
    rows = [{"prompt": EVIL, "response": f"{word} & <b>"} for word in ("one", "two", "six")]
    lengths = [sum(example.is_response) for example in fl.encode(rows_of(rows), tokenizer)]
    features = fl.TokenFeatures.from_list([np.random.default_rng(k).standard_normal((n, 6)) for k, n in enumerate(lengths)])
    quotas = {"groups": ["a", "a", "b"], "quotas": {"b": (lengths[2], None), "a": (None, 0.9)}}
    selection = fl.select(features, tokens=sum(lengths[1:]), **quotas)
    reasons = fl.explain(features, selection, groups=quotas["groups"])
    out = report(selection, rows, features, out=tmp_path / "a.html", reasons=reasons, tokenizer=tokenizer)
    text = out.read_text(encoding="utf-8")
    seen, first = Page(text), reasons.chosen[0]["tokens"]
    shades = re.findall(r'<span class="h(\d)" title="([\d.]+) nats', text)
    assert [float(gain) for _, gain in shades[: len(first)]] == pytest.approx(first, abs=6e-4)
    assert shades[int(np.argmax(first))][0] == "4" and shades[int(np.argmin(first))][0] == "0"
    assert "<script" not in text and EVIL in seen.said and "& <b>" in "".join(seen.words)
    assert f"Quota of b at least {lengths[2]} {lengths[2]}" in seen.said and "Quota of a at least 0, at most" in seen.said
    with pytest.raises(ValueError, match="expected a value for each of .* response tokens"):
        report(selection, rows, features, out=out, reasons=reasons, tokenizer=tokenizer, max_tokens=len(EVIL) + 3)


def rows_of(rows):
    from datasets import Dataset

    return Dataset.from_list(rows)


def test_what_shrank_is_named_and_what_did_not_is_not(pool, tmp_path):
    rows, features, _ = pool
    groups = ["kept" if i < 20 else "gone" for i in range(len(rows))]
    picks = {"indices": np.arange(8), "gains": np.ones(8), "costs": features.lengths[:8].numpy().astype(float)}
    out = report(fl.Selection(**picks, pool_size=len(rows)), rows, features, out=tmp_path / "a.html", groups=groups)
    lost = re.search('id="what-you-lose-here".*?</section>', out.read_text(encoding="utf-8"), re.S)[0]
    assert "gone" in lost and "(nothing is left)" in lost and "kept" not in lost
    whole = {"indices": np.arange(40), "gains": np.ones(40), "costs": features.lengths.numpy().astype(float)}
    out = report(fl.Selection(**whole, pool_size=40), rows, features, out=tmp_path / "b.html", groups=groups)
    assert "None did." in out.read_text(encoding="utf-8")


def test_picks_that_are_near_copies_are_counted(pool, tmp_path):
    rows, _, _ = pool
    picks = {"indices": np.array([2, 0, 9]), "gains": np.ones(3), "costs": np.ones(3)}
    out = report(fl.Selection(**picks, pool_size=40), rows, out=tmp_path / "a.html", seen=[rows[4], rows[20]])
    seen = Page(out.read_text(encoding="utf-8")).said
    assert "Picks that are near-copies of an earlier row 1 33.3 %" in seen
    assert "Picks that are near-copies of another pick 1 33.3 %" in seen
    assert "2 rows 2 picks are near-copies of one" in seen and "letters" in seen  # without features


@pytest.mark.parametrize("rows", [[], [{"text": "a"}], [{"messages": [{"role": "user", "content": EVIL}]}]])
def test_nothing_picked_and_pools_of_one(rows, tmp_path):
    nothing = {"indices": np.array([], dtype=int), "gains": np.array([]), "costs": np.array([])}
    if not rows:
        rows = rows_of([{"text": "a"}]).select([])
    out = report(fl.Selection(**nothing, pool_size=len(rows)), rows, out=tmp_path / "a.html")
    assert "There are no picks." in Page(out.read_text(encoding="utf-8")).said


def test_rows_and_features_of_another_pool_are_refused_and_leave_no_file(pool, tmp_path):
    rows, features, groups = pool
    selection = fl.select(features, examples=2)
    out = tmp_path / "a.html"
    for bad, words in (
        ({"rows": rows[:3]}, "expected the rows of the 40 examples of the selection's pool, got 3"),
        ({"features": features.subset([1, 2])}, "expected the features of the 40 examples of the selection's pool, got 2"),
        ({"groups": groups[:4]}, "expected a label for each of 40 examples, got 4"),
    ):
        given = {"rows": rows, "features": features, "groups": groups} | bad
        with pytest.raises(ValueError, match=re.escape(words)):
            report(selection, given["rows"], given["features"], out=out, groups=given["groups"])
    assert not list(tmp_path.iterdir())


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])  # the narrowest window that Chromium opens, and a desktop
def test_a_browser_shows_it_without_scrolling_sideways(page, tmp_path, width):
    copy = tmp_path / "page.html"
    text = page[1].read_text(encoding="utf-8")
    probe = "document.title = [document.documentElement.scrollWidth, innerWidth].join()"
    copy.write_text(text.replace("</html>", f"<script>{probe}</script></html>"), encoding="utf-8")
    assert shutil.which(BROWSER)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", "--dump-dom", copy.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    wide, window = map(int, re.search(r"<title>(\d+),(\d+)</title>", shown).groups())
    assert wide <= window
