"""Hygiene of the committed notebooks, and what every lesson has: read, never executed."""

import ast
import base64
import html
import inspect
import io
import operator
import re
from urllib.parse import unquote

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from PIL import Image

import fisherlib as fl
from fisherlib.course.notebook import NOTEBOOKS, RECORD_MIME, results, stamp
from tests.course.browser import in_browser, needs_browser

COURSE = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
ALL = [*COURSE, *sorted(NOTEBOOKS.glob("solutions/*.ipynb"))]
PAGES = [*ALL, *sorted(NOTEBOOKS.glob("*.md"))]
FIGURES = sorted(NOTEBOOKS.glob("figures/*.svg"))
WIDEST = 7.28  # inches: a page, and the white around a picture
every_notebook = pytest.mark.parametrize("path", ALL, ids=lambda p: p.relative_to(NOTEBOOKS).as_posix())
course_notebook = pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name)
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(NOTEBOOKS).as_posix())


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def prose(path):
    """The Markdown of a page."""
    return path.read_text() if path.suffix == ".md" else "\n\n".join(cell.source for cell in cells(path, "markdown"))


def trees(path):
    return [ast.parse(cell.source) for cell in cells(path, "code")]


def test_there_are_notebooks_and_each_has_solutions():
    assert COURSE
    assert [p.name for p in sorted(NOTEBOOKS.glob("solutions/*.ipynb"))] == [p.name for p in COURSE]


@every_notebook
def test_outputs_come_from_this_code_run_from_top_to_bottom(path):
    node = nbformat.read(path, as_version=4)
    nbformat.validate(node)
    assert node.metadata["fisherlib"]["stamp"] == stamp(node), "stale outputs: run make notebooks"
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs and not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert results(path)


@every_notebook
def test_nothing_of_the_machine_or_the_run_is_committed(path):
    text = path.read_text()
    assert not re.search(r"/(root|home|work|tmp|Users)/|[A-Z]:\\\\\\\\", text)
    assert not re.search(r'"papermill"|iopub|"widgets"|widget-view|injected-parameters', text)
    assert len(text) < 1_000_000


@every_notebook
def test_parameters_are_documented_literals(path):
    tagged = [c for c in cells(path, "code") if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)
    declared = papermill.inspect_notebook(str(path))
    assert len(declared) == len(ast.parse(tagged[0].source).body)  # papermill's own parser sees them all
    assert all(about["help"] and about["inferred_type_name"] for about in declared.values())
    assert {"seed", "out_dir"} <= set(declared)


@every_notebook
def test_no_notebook_redefines_a_public_name(path):
    for tree in trees(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name not in fl.__all__
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert node.id not in set(fl.__all__) - {"selectors"}


@every_notebook
def test_only_public_names_of_the_library_are_used(path):
    """`fl.<name of fl.__all__>` and what lies below it; imports but for the engine's; nowhere a leading underscore."""
    for tree in trees(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr.startswith("__") or not node.attr.startswith("_"), ast.unparse(node)
                if ast.unparse(node.value) == "fl":
                    assert node.attr in fl.__all__ or node.attr.startswith("__"), ast.unparse(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                whole = [f"{getattr(node, 'module', '')}.{alias.name}".lstrip(".") for alias in node.names]
                for name in whole:
                    assert not re.match(r"fisherlib\.(.+\.)?_|fisherlib\.(greedy|features|text|model)\b", name), name


@every_notebook
def test_no_lesson_has_an_output_widget(path):
    """It shows nothing where no kernel runs, and a runner that plays the browser for it can wait for ever (engine.py)."""
    for tree in trees(path):
        names = {getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(tree)}
        assert not names & {"Output", "interact", "interact_manual", "interactive", "interactive_output"}


@every_notebook
def test_code_is_narrow_and_no_cell_is_long(path):
    for cell in cells(path, "code"):
        lines = cell.source.splitlines()
        assert len(lines) <= 30, cell.source
        assert not [line for line in lines if len(line) > 88]


@course_notebook
def test_the_size_of_a_lesson(path):
    code, text = cells(path, "code"), cells(path, "markdown")
    lines = sum(bool(line.strip()) for cell in code for line in cell.source.splitlines())
    read = [cell.source.split("## References")[0] for cell in text]  # nobody reads those from top to bottom
    read = [re.sub("<details>.*?</details>", "", part, flags=re.S) for part in read]  # nor what is folded
    words = sum(any(map(str.isalnum, word)) for part in read for word in part.split())  # not a table's bars
    assert 20 <= len(code) + len(text) <= 45
    assert 110 <= lines <= 220
    assert 700 <= words <= 2200


@course_notebook
def test_the_parts_of_a_lesson(path):
    node = nbformat.read(path, as_version=4)
    text = [cell.source for cell in node.cells if cell.cell_type == "markdown"]
    code = "\n".join(cell.source for cell in node.cells if cell.cell_type == "code")
    number = path.stem.partition("_")[0]
    assert re.match(rf"# {number} · .+\n+\*[^*\n]+\?\*", text[0]), "a title and the question it answers"
    assert "<!-- box -->" in text[0] and "minutes on 2 CPU cores" in text[0]
    early, whole = "\n".join(text[:3]), "\n".join(text)
    assert "**What you will have at the end**" in early and "**After this notebook you can**" in early
    for part in ("**How to read it.**", "**Three lines to take home**", "<summary>Hint 1</summary>"):
        assert part in whole, part
    assert re.search(r"\*[^*\n]*\b(predict|guess|before you)\b", whole, re.I), "a guess before a cell runs"
    assert "did not show" in whole and text[-1].count("## References") == 1
    assert "## " not in text[-1].split("## References")[1], "references are the last"
    for call in ("check(", "exercises.", "record("):
        assert call in code, call
    assert any(RECORD_MIME in output.get("data", {}) for cell in node.cells for output in cell.get("outputs", []))


@course_notebook
def test_a_lesson_is_linked_with_its_neighbours_and_the_glossary(path):
    text, at = prose(path), COURSE.index(path)
    head = "\n".join(cell.source for cell in cells(path, "markdown")[:2])
    assert "](GLOSSARY.md)" in head and "](../README.md)" in head
    for other, label in ((at - 1, "← "), (at + 1, " →")):
        if 0 <= other < len(COURSE):
            assert re.search(rf"\[[^\]]*{label.strip()}[^\]]*\]\({COURSE[other].name}\)", head), COURSE[other].name
    assert f"](solutions/{path.name})" in text


@course_notebook
def test_exercises_are_rated_timed_and_checked_without_their_answers(path):
    rated = re.findall(r"\*\*Exercise (\d+)\*\* \([★☆]{3}, \d+ minutes\)", prose(path))
    assert rated == [str(k + 1) for k in range(len(rated))] and len(rated) >= 3
    checked = []
    for tree in trees(path):
        if not has_a_blank(tree):
            continue
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef) or is_given(statement):
                continue
            assert isinstance(getattr(statement, "value", None), ast.Call), ast.unparse(statement)
            checked.append(ast.unparse(statement.value.func))
            assert checked[-1].startswith("exercises."), ast.unparse(statement)
    assert len(checked) >= len(rated)
    solved = {ast.unparse(node.func) for tree in trees(NOTEBOOKS / "solutions" / path.name)
              for node in ast.walk(tree) if isinstance(node, ast.Call)}  # fmt: skip
    assert set(checked) <= solved, "solutions call the same checkers"
    assert not re.search(r"\battempt\(", "\n".join(cell.source for cell in cells(path, "code")))


def has_a_blank(tree):
    """Whether a cell is an exercise: `...` stands where an answer goes, not in an index."""
    indices = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Subscript) for inner in ast.walk(node.slice)}
    return any(isinstance(node, ast.Constant) and node.value is ... and id(node) not in indices for node in ast.walk(tree))


def is_given(statement):
    """Whether it assigns a blank, or numbers of the question."""
    calls = {ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)}
    return isinstance(statement, ast.Assign) and calls <= {"np.array", "torch.tensor"}


@course_notebook
def test_every_open_exercise_says_so(path):
    exercises = [cell for cell in cells(path, "code") if has_a_blank(ast.parse(cell.source))]
    for cell in exercises:
        assert "○ not answered yet" in "".join(output.get("text", "") for output in cell.outputs), cell.source


@every_notebook
def test_prose_holds_no_result_typed_by_hand(path):
    for cell in cells(path, "markdown"):
        text = re.sub(
            r"<!-- box -->.*?<!-- /box -->|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|arXiv \d+\.\d+|\]\([^)]*\)|95 %|Apache-2\.0",
            "",
            cell.source,
            flags=re.S,
        )
        assert not re.findall(r"\d+\.\d+|\d+ ?%", text), cell.source


@every_notebook
def test_shown_source_is_today_s(path):
    for cell in cells(path, "code"):
        for name in re.findall(r"\bshow\(fl\.([\w.]+)\)", cell.source):
            source = inspect.getsource(operator.attrgetter(name)(fl))
            assert len(source.splitlines()) <= 20, f"{name} is long: let the reader write a small version"
            shown = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
            assert any(html.escape(source) in each for each in shown), "stale: make notebooks"


@every_notebook
def test_every_mention_of_a_notebook_or_a_paper_is_a_link(path):
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "", prose(path))
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)]*)\)", text):
        number = re.search(r"\bnotebook (\d\d[abc]?)", label)
        assert not number or target.split("/")[-1].startswith(f"{number[1]}_"), (label, target)
        paper = re.search(r"\d{4}\.\d{5}", label)
        assert not paper or target == f"https://arxiv.org/abs/{paper[0]}", (label, target)
    bare = re.sub(r"\[[^\]]*\]\([^)]*\)", "", text)
    assert not re.findall(r".{0,30}\bnotebooks? \d\d.{0,10}|.{0,30}\b\d{4}\.\d{5}", bare)


@every_page
def test_every_relative_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(path))):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), f"{target}: {other.name} has no such heading"


def anchors(page):
    """What a link may name: GitHub's short form in Markdown, in a notebook the heading with dashes, as Jupyter has it."""
    heads = re.findall(r"^#{1,6} +(.+?) *$", re.sub("^```.*?^```", "", prose(page), flags=re.M | re.S), re.M)
    if page.suffix == ".md":
        return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
    return {head.replace(" ", "-") for head in heads}


ALSO = {
    "log det": r"\\log\\det",
    "near-duplicate": "near-cop",
    "NLL held out": "held-out|held out",
    "I-optimality": "I-optimal|I-criterion",
    "paired difference": "paired",
    "positive semidefinite": "negative eigenvalue",
    "sigma0": "sigma_0",
    "D-optimal design": "D-optimal",
    "Woodbury identity": "Woodbury's identity",
}


def test_the_glossary_says_each_word_in_two_sentences_and_where_it_is_used():
    entries = re.findall(r"^## (.+)\n\n(.+)$", (NOTEBOOKS / "GLOSSARY.md").read_text(), re.M)
    assert len(entries) >= 30 and [word for word, _ in entries] == sorted((word for word, _ in entries), key=str.lower)
    for word, text in entries:
        said, name = re.fullmatch(r"(.+) First used in \[notebook \w+\]\((\w+\.ipynb)\)\.", text).groups()
        assert len(re.findall(r"[.:;] ", said)) >= 1 and len(said.split()) <= 60, word
        assert re.search(ALSO.get(word, re.escape(word)), prose(NOTEBOOKS / name), re.I), (word, name)


@every_notebook
def test_every_picture_is_said_in_words_and_fits_a_page(path):
    for cell in cells(path, "code"):
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" not in data:
                continue
            alt = re.search('<img alt="([^"]+)"', data.get("text/html", ""))
            assert alt and len(alt[1]) > 15 and data["text/plain"] == html.unescape(alt[1]), cell.source
            assert output.metadata["image/png"]["width"] <= WIDEST * 96 + 1
            image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
            assert image.width >= 0.99 * output.metadata["image/png"]["width"] and image.mode == "P"
            edges = np.asarray(image.convert("RGB"))
            moving = getattr(image, "n_frames", 1) > 1  # a film keeps the size of its frames
            for edge in () if moving else (edges[0], edges[-1], edges[:, 0], edges[:, -1]):
                assert (edge >= 250).all(), f"ink at the border: {alt[1]}"


def test_every_svg_is_drawn_by_a_notebook_said_in_words_and_a_page_wide_at_most():
    for figure in FIGURES:
        text = figure.read_text()
        head = re.search(r'<svg [^>]*width="([\d.]+)pt"[^>]*role="img">\n <title>(.+)</title>\n <desc>(.+)</desc>', text)
        assert head and len(head[3]) > 15, figure.name
        assert float(head[1]) <= WIDEST * 72 + 1, figure.name
        drawn = [cell.source for path in ALL if figure.name.startswith(f"{path.stem}_") for cell in cells(path, "code")]
        name = figure.name.partition("_")[2]
        assert any(name.endswith(svg) for svg in re.findall(r"\w+\.svg", "\n".join(drawn))), f"{name}: nobody draws it"


INK = """(() => {{
  const image = document.getElementById("{0}"), at = document.createElement("canvas").getContext("2d");
  const [w, h] = [at.canvas.width, at.canvas.height] = [image.width, image.height];
  at.fillStyle = "white"; at.fillRect(0, 0, w, h); at.drawImage(image, 0, 0, w, h);
  const border = [[0, 0, w, 1], [0, h - 1, w, 1], [0, 0, 1, h], [w - 1, 0, 1, h]];
  return border.some(edge => at.getImageData(...edge).data.some(v => v < 250));
}})()"""


@needs_browser
def test_no_svg_is_cut_off(tmp_path):
    """No ink at the border."""
    page = "".join(
        f'<img id="{f.stem}" src="data:image/svg+xml;base64,{base64.b64encode(f.read_bytes()).decode()}">' for f in FIGURES
    )
    cut = in_browser(tmp_path, page, *(INK.format(figure.stem) for figure in FIGURES))
    assert [figure.name for figure, ink in zip(FIGURES, cut, strict=True) if ink] == []


@pytest.mark.parametrize("profile", sorted(NOTEBOOKS.glob("profiles/*.yaml")), ids=lambda p: p.stem)
def test_profiles_name_parameters_that_exist(profile):
    declared = set().union(*(papermill.inspect_notebook(str(path)) for path in ALL))
    values = yaml.safe_load(profile.read_text())
    assert values and set(values) <= declared
    assert all(isinstance(value, int | float | str | bool) for value in values.values())  # flat
