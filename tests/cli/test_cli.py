"""Does one command give a subset that can be defended, say what went wrong in one line, and end with the right code?"""

import errno
import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import pytest

import fisherlib as fl
from fisherlib.assets import ROOT
from tests.cli.things import SELECT, TEMPLATE, record, rows, write

pytestmark = pytest.mark.usefixtures("as_a_user")

# --- the door ----------------------------------------------------------------------------------------------------------


def test_help_needs_no_pytorch_and_each_verb_has_an_example():
    code = (
        "import sys\nfrom fisherlib.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(verb in done.stdout for verb in EXAMPLES)


def examples():
    text = (ROOT / "fisherlib" / "cli" / "__init__.py").read_text()
    return {line.split()[1]: line for line in re.findall(r"Example: (fisherlib [^\"]*?)(?:\. One|\")", text)}


EXAMPLES = examples()


def test_every_example_of_help_runs(command, monkeypatch):
    called = []
    monkeypatch.setattr("fisherlib.course.notebook.__main__.main", called.append)
    assert set(EXAMPLES) == {
        *("select", "forecast", "audit", "extract", "explain", "report", "status", "replay", "notebook"),
    }
    for verb in ("forecast", "select", "audit", "extract", "status", "explain", "report", "replay", "notebook"):
        said = EXAMPLES[verb].removeprefix("fisherlib ").replace("20000", "200")
        code, _, err = command(said)
        assert code == 0, (said, err)
    assert "<html" in Path("subset.html").read_text()
    assert called == [["run", "00_quickstart", "-p", "pool_examples", "300"]]


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("select", 2, "expected DATA and --tokens, or a --plan"),
        ("select my.jsonl --nope", 2, "No such option"),
        (f"{SELECT} --format xml", 2, "expected --format auto, human, json, quiet"),
        (f"{SELECT} --method best", 2, "expected --method recipe, fisher, uniform"),
        (f"{SELECT} --quota a=0.2", 2, "expected --group-by COLUMN beside --quota"),
        (f"{SELECT} --quota a=x --group-by kind", 2, "expected --quota like code=0.2"),
        (f"{SELECT} --quota a=.7 --quota b=.6 --group-by kind", 2, "expected quotas of at most 1 in all"),
        (f"{SELECT} --quota a=.5:.2 --group-by kind", 2, "expected the floor of 'a' below its ceiling"),
        (f"{SELECT} --quota a=1.5 --group-by kind", 2, "expected --quota like code=0.2"),
        (f"{SELECT} --quota a=: --group-by kind", 2, "expected --quota like code=0.2"),
        (f"{SELECT} --quota a=150 --quota b=.5: --group-by kind", 2, "expected quotas of at most 1 in all, got 1.25 of 200"),
        (f"{SELECT} --quota pool --quota b=.5 --group-by kind", 2, "expected --quota pool alone"),
        (f"{SELECT} --stop 0.1", 2, "expected --stop with --method fisher"),
        (f"{SELECT} --seen my.jsonl", 2, "expected --seen with --method fisher"),
        (f"{SELECT} --columns prompt", 2, "expected --columns like prompt=question"),
        (f"{SELECT} --for me", 2, "expected --for trl, llama-factory, axolotl"),
        (f"{SELECT} -o subset.csv", 2, "expected --out to be a .jsonl file"),
        (f"{SELECT} -t 0", 2, "expected --tokens above 0"),
        (f"{SELECT} -t nan", 2, "expected --tokens above 0, got [200.0, nan]"),
        (f"{SELECT} --seed -1", 2, "expected --seed from 0 to 4294967295, got -1"),
        (f"{SELECT} --stop 2 --method fisher", 2, "expected --stop between 0 and 1, got 2.0"),
        (f"{SELECT} --memory 0", 2, "expected --memory above 0, in gigabytes"),
        (f"{SELECT} -t 1", 1, "expected --tokens of at least"),
        (f"{SELECT} --work my.jsonl", 1, "expected to write my.jsonl/features, but File exists"),
        (f"{SELECT} -t 99999", 1, "expected --tokens of at most"),
        (f"{SELECT} --group-by none", 1, "expected --group-by to be a column of the rows, got 'none'"),
        (f"{SELECT} --group-by kind --quota z=0.1", 1, "expected --quota of groups in 'kind', got 'z'"),
        (f"{SELECT} --too-long cut", 1, "expected too_long 'error', 'drop' or 'truncate'"),
        ("select none.jsonl -m my-model -t 20", 1, "no such file; check the path"),
        ("select my.jsonl -m ./nowhere -t 20", 1, "no such folder; check the path"),
        (f"{SELECT} -o theirs.jsonl", 12, "which no run of ours wrote"),
        (f"{SELECT} -o my.jsonl --overwrite", 2, "expected to write to another file than the data"),
        (f"{SELECT} -o folder.jsonl", 2, "expected --out to be a file, got folder.jsonl"),
        ("select . -m my-model -t 20", 2, "expected to write outside the folder of the data"),
        ("select my.reasons.jsonl -m my-model -t 20 -o my.jsonl", 2, "another file than the data, got my.reasons.jsonl"),
        ("audit my.jsonl -m my-model -o my.jsonl", 2, "expected to write to another file than the data"),
        ("forecast my.jsonl -m my-model -t 20 --plan my.jsonl", 2, "expected to write to another file than the data"),
        ("extract . -m my-model -o features", 2, "expected to write outside the folder of the data"),
        ("report subset.manifest.json -o my.jsonl", 2, "expected --out to be a .html file"),
        (
            f"{SELECT} -o subset.jsonl --group-by kind --quota a=.2 --quota a=.3",
            2,
            "one --quota for each group, got two of 'a'",
        ),
        (f"{SELECT} --columns prompt=id,prompt=kind", 2, "one column for each of ours in --columns, got one twice"),
        (f"{SELECT} --group-by _source", 1, "got '_source': name one of ['id', 'prompt', 'response', 'kind']"),
        (f"{SELECT} -t 1000000", 1, "expected --tokens of at most 902, all that there are, got 1,000,000: lower it"),
        ("explain my.jsonl", 1, "expected a manifest"),
        ("status none.jsonl", 1, "expected the record of a run"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_code(command, here, call, code, words):
    (here / "folder.jsonl").mkdir()
    for name in ("theirs.jsonl", "my.reasons.jsonl"):
        write(here / name, *rows(1))
    data = (here / "my.jsonl").read_bytes()
    found, _, err = command(call)
    assert found == code and words in " ".join(err.split()), err
    own = [line for line in err.strip().splitlines() if not line.startswith("fisherlib: model: ")]
    assert code == 2 or (len(own) == 1 and "Traceback" not in err)
    assert (here / "my.jsonl").read_bytes() == data


# --- select ------------------------------------------------------------------------------------------------------------


def test_a_subset_has_its_lines_a_manifest_a_record_and_reasons(command, here):
    lines = (here / "my.jsonl").read_text().splitlines()
    code, out, err = command(f"{SELECT} --for trl")
    assert code == 0 and out.startswith("method: recipe: near-copies out, then chance at the pool's own mix")
    subset = (here / "subset.jsonl").read_text().splitlines()
    assert subset and set(subset) <= set(lines)
    selection = fl.Selection.load("subset.manifest.json")
    assert [lines[line - 1] for line in selection.provenance["line"]] == subset
    run = selection.settings["run"]
    assert run["data"]["files"][0]["sha256"] == hashlib.sha256((here / "my.jsonl").read_bytes()).hexdigest()
    assert run["model"]["model_weights"] and run["model"]["chat_template"] and run["command"]["seed"] == 0
    said = record()
    assert said["state"] == "done" and said["exit_code"] == 0 and said["arguments"]["too_long"] == "error"
    assert said["got"]["tokens"] == selection.costs.sum() <= said["got"]["asked"]["tokens"] == 200
    assert all(step["seconds"] is not None for step in said["steps"])
    reasons = [json.loads(line) for line in (here / "subset.reasons.jsonl").open()]
    assert len(reasons) == 40 and [one["line"] for one in reasons[: len(subset)]] == selection.provenance["line"][:]
    assert (here / "subset.trl.jsonl").exists() and "what it is made of" in err
    assert not (here / "subset.skipped.jsonl").exists()


@pytest.mark.parametrize("method", ["recipe", "uniform", "fisher"])
def test_the_same_command_again_computes_no_features_and_writes_the_same(command, here, method, monkeypatch):
    assert command(f"{SELECT} --method {method} --format quiet") == (0, "", "")
    first = (here / "subset.jsonl").read_bytes()
    monkeypatch.setattr("fisherlib.features.extract._columns", None)  # nobody may call it
    assert command(f"{SELECT} --method {method}")[0] == 0
    assert (here / "subset.jsonl").read_bytes() == first


def test_lines_of_json_say_status_and_summary_and_an_error(command):
    code, out, err = command(f"{SELECT} --format json")
    said = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err == "" and {one["type"] for one in said[:-1]} == {"status"}
    assert said[-1]["type"] == "summary" and said[-1]["tokens"] <= 200
    code, out, err = command("select none.jsonl -m my-model -t 20 --format json")
    last = json.loads(out.splitlines()[-1])
    assert code == 1 and last["type"] == "error" and "no such file" in last["message"] and err == ""


def test_rows_that_cannot_be_used_are_skipped_with_their_reasons(command, here):
    long = {"id": "long", "prompt": "p", "response": "word " * 99}
    write(here / "my.jsonl", *rows(), {"id": "e", "prompt": "p", "response": ""}, '{"broken', long)
    code, _, err = command(SELECT)
    assert code == 1 and "got 1 longer ones, first line 43 (long): give --too-long drop or --too-long truncate" in err
    assert record()["state"] == "failed" and record()["exit_code"] == 1
    code, out, err = command(f"{SELECT} --too-long drop")
    assert code == 3 and "rows: 40 of 43 can be used (2 not usable; 1 too long)" in out and "skipped 3 of 43 rows" in err
    skipped = [json.loads(line) for line in (here / "subset.skipped.jsonl").open()]
    assert [(one["line"], one["id"]) for one in skipped] == [(41, "e"), (42, None), (43, "long")]
    assert record()["state"] == "done in part" and record()["skipped"] == {"not usable": 2, "too long": 1}
    code, out, _ = command(f"{SELECT} --too-long truncate --work other")
    assert code == 3 and "rows: 41 of 43 can be used (2 not usable; 1 truncated)" in out


def test_no_row_no_trust_no_room(command, here, model, monkeypatch):
    write(here / "bad.jsonl", {"prompt": "p", "response": ""})
    code, _, err = command("select bad.jsonl -m my-model -t 20")
    assert code == 10 and "expected a non-empty 'response'" in err
    write(here / "own.jsonl", {"q": "p", "a": "r"})
    code, _, err = command("select own.jsonl -m my-model -t 20")
    assert code == 10 and "got ['a', 'q']: name yours: --columns prompt=question,response=answer" in err
    (here / "other").mkdir()
    for file in model.iterdir():
        (here / "other" / file.name).write_bytes(file.read_bytes())
    ignoring = TEMPLATE.split("{% if")[0]
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = here / "other" / name
        if path.exists():
            path.write_text(path.read_text().replace(TEMPLATE, ignoring))
    code, _, err = command("select my.jsonl -m other -t 20")
    assert code == 10 and "ignores that, so its '<|assistant|>' would count as response" in err
    (here / "file").write_text("")
    code, _, err = command("select my.jsonl -m my-model -t 20 -o file/subset.jsonl")
    assert code == 1 and "expected to write file/subset.run.json, but File exists: free some space" in err
    with monkeypatch.context() as patch:
        patch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10}))
        patch.setattr("torch.cuda.is_available", lambda: True)  # beside the CPU that was asked for
        code, _, err = command(f"{SELECT} --device cpu")
    assert code == 11 and "of memory for the weights, got 0.0 GB" in err
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 10}))
    code, _, err = command(SELECT)
    assert code == 11 and "of free disk for the features" in err


def test_features_of_other_rows_are_never_mixed_in_and_the_good_record_stays(command, here):
    assert command(SELECT)[0] == 0
    kept = {path.name: path.read_bytes() for path in here.glob("subset.*") if path.is_file()}
    write(here / "my.jsonl", *rows(30), {"prompt": "p", "response": ""})
    code, _, err = command(SELECT)
    assert code == 12 and err.splitlines()[-1] == (
        "fisherlib: expected the rows and the model that subset.work/features was made for, got others (examples (40 there, "
        f"30 here); tokens (902 there, {sum(len(row['response']) + 1 for row in rows(30))} here); "
        + re.search(r"rows \(\w+ there, \w+ here\)", err)[0]
        + "): give another --out, or another --work folder, or remove subset.work/features"
    )
    assert {path.name: path.read_bytes() for path in here.glob("subset.*") if path.is_file()} == kept
    assert "state: done" in command("status subset.jsonl")[1]
    assert command(f"{SELECT} --work fresh")[0] == 3
    (here / "theirs" / "features").mkdir(parents=True)
    (here / "theirs" / "features" / "letter.txt").write_text("dear")
    code, _, err = command(f"{SELECT} --work theirs -o new.jsonl")
    assert code == 12 and "in theirs/features, got other files: name another --work folder" in err
    assert record("new.run.json")["exit_code"] == 12


def test_of_two_commands_at_once_on_one_output_the_second_is_refused(command, here, monkeypatch):
    from filelock import FileLock

    assert command(SELECT)[0] == 0
    kept = Path("subset.run.json").read_bytes()
    for lock, words in (
        (".subset.run.json.lock", "but another command writes subset.run.json now: wait for it, or give another --out"),
        ("subset.work/features/.lock", "expected subset.work/features to itself, but another command fills it now"),
    ):
        with FileLock(lock, timeout=0), monkeypatch.context() as patch:
            if lock.startswith("subset.work"):  # a folder that is full is only read, and needs no lock
                info = json.loads(Path("subset.work/features/info.json").read_text())
                Path("subset.work/features/info.json").write_text(json.dumps(info | {"done": info["done"] - 1}))
            patch.setattr("fisherlib.features.extract._columns", None)
            code, _, err = command(SELECT)
        assert code == 12 and words in err and Path("subset.run.json").read_bytes() == kept
    assert command(SELECT)[0] == 0


def test_quotas_are_met_and_several_budgets_cost_one_extraction(command, here, monkeypatch):
    quotas = "--group-by kind --quota b=0.5"
    for method in ("fisher", "recipe", "uniform"):
        code, out, _ = command(f"{SELECT} --method {method} {quotas} -t 300")
        groups = {got["out"]: got["groups"] for got in record()["got"]}
        assert code == 0 and set(groups) == {"subset.300.jsonl", "subset.200.jsonl"}
        assert all(group["b"]["asked"] == [0.5, 0.5] and group["b"]["missing"] == 0 for group in groups.values())
        assert "asked for 50.0%" in out and ("price: the quota of b" in out) == (method == "fisher")
        monkeypatch.setattr("fisherlib.features.extract._columns", None)
    code, out, _ = command(f"{SELECT} --method fisher -t 300 -t 100")
    small, middle, large = ((here / f"subset.{n}.jsonl").read_text() for n in (100, 200, 300))
    assert code == 0 and large.startswith(middle) and middle.startswith(small) and "each begins the next" in out


@pytest.mark.parametrize("method", ["recipe", "fisher", "uniform"])
def test_floors_ceilings_tokens_and_the_mix_of_the_pool(command, here, method):
    found = {}
    for name, quota in (
        ("free", ""),
        ("met", "--quota a=0.01:0.99 --quota b=0.01:"),  # as the selection is anyway
        ("floor", "--quota b=0.5:"),
        ("ceiling", "--quota b=:0.1"),
        ("both", "--quota b=0.4:0.45"),
        ("tokens", "--quota b=60:70"),
        ("pool", "--quota pool"),
        ("two ceilings", "--quota a=:0.3 --quota b=:0.3"),
    ):
        code, out, err = command(f"{SELECT} --method {method} --group-by kind --no-reasons {quota}")
        assert code == 0, (name, err)
        found[name] = fl.Selection.load("subset.manifest.json"), record()["got"], out
    longest = max(len(row["response"]) + 1 for row in rows())
    spent = {name: {g: one["tokens"] for g, one in got["groups"].items()} for name, (_, got, _) in found.items()}
    assert found["met"][0].indices.tolist() == found["free"][0].indices.tolist()
    assert spent["floor"]["b"] > 100 - longest and spent["ceiling"]["b"] < 20 + longest
    assert 80 - longest < spent["both"]["b"] < 90 + longest and 60 - longest < spent["tokens"]["b"] < 70 + longest
    assert spent["pool"]["b"] == pytest.approx(200 * 0.225, abs=longest)
    assert max(spent["two ceilings"].values()) < 60 + longest and found["two ceilings"][1]["tokens"] < 120 + 2 * longest
    for name, words in (
        ("floor", "asked for at least 50.0%"),
        ("ceiling", "asked for at most 10.0%"),
        ("both", "asked for 40.0% to 45.0%"),
        ("tokens", "asked for 30.0% to 35.0%"),
    ):
        assert words in found[name][2]
        assert ("price: the quota of b" in found[name][2]) == (method == "fisher")


def test_the_shares_of_groups_are_as_the_pool_has_them_within_their_bounds():
    from fisherlib.cli.quotas import shares_of

    held = {"a": 600.0, "b": 300.0, "c": 100.0}
    everything = {"a": 1e9, "b": 1e9, "c": 1e9}
    assert shares_of({}, held, everything, 100) == {"a": 0.6, "b": 0.3, "c": 0.1}
    assert shares_of({"c": (40, 40)}, held, everything, 100) == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4})
    assert shares_of({"a": (0, 30)}, held, everything, 100) == pytest.approx({"a": 0.3, "b": 0.525, "c": 0.175})
    assert shares_of({"a": (0, 30), "c": (0, 10)}, held, everything, 100) == pytest.approx({"a": 0.3, "b": 0.6, "c": 0.1})
    assert shares_of({"a": (65, 100), "c": (20, 100)}, held, everything, 100) == pytest.approx(
        {"a": 0.65, "b": 0.15, "c": 0.2}
    )
    assert shares_of({"a": (0, 10)}, held, everything | {"b": 20}, 100) == pytest.approx({"a": 0.1, "b": 0.2, "c": 0.7})
    assert shares_of({g: (0, 10) for g in held}, held, everything, 100) == {"a": 0.1, "b": 0.1, "c": 0.1}


def test_five_budgets_cost_one_extraction_and_one_selection_and_a_changed_quota_none(command, here, monkeypatch):
    from transformers import LlamaModel

    nested = importlib.import_module("fisherlib.greedy.nested")  # the file, not the function of its name
    counted, forward, select = {"forward": 0, "select": 0}, LlamaModel.forward, nested.select

    def counting(self, *given, **more):
        counted["forward"] += 1
        return forward(self, *given, **more)

    def choosing(*given, **more):
        counted["select"] += 1
        return select(*given, **more)

    monkeypatch.setattr(LlamaModel, "forward", counting)
    monkeypatch.setattr(nested, "select", choosing)
    assert command(f"{SELECT} --method fisher --stop 0.001 --no-reasons -o one.jsonl")[0] == 0
    once = counted["forward"]
    assert once > 0
    counted["forward"] = 0
    sweep = "-t 100 -t 150 -t 250 -t 300 --method fisher --stop 0.001 --no-reasons"
    assert command(f"{SELECT} {sweep}")[0] == 0 and counted == {"forward": once, "select": 1}
    steps = [step["name"] for step in record()["steps"]]
    assert steps.count("features") == 1 and [name for name in steps if name.startswith("select")] == ["select 300 tokens"]
    assert len(record()["got"]) == 5
    for quota in ("b=0.3", "b=0.2:0.5"):
        assert command(f"{SELECT} --method fisher --group-by kind --quota {quota}")[0] == 0
    assert counted["forward"] == once


def test_what_was_seen_is_known_and_a_stop_ends_early(command, here):
    write(here / "old.jsonl", *rows(20))
    chosen = {}
    for name, more in (("plain", ""), ("seen", "--seen old.jsonl"), ("stop", "--stop 0.9")):
        assert command(f"{SELECT} --method fisher {more}") == (0, ANY, ANY)
        chosen[name] = fl.Selection.load("subset.manifest.json")
    assert chosen["seen"].objective < chosen["plain"].objective and chosen["seen"].settings["seen"]["examples"] == 20
    assert len(chosen["stop"]) < len(chosen["plain"])
    assert command(f"{SELECT} --method fisher --seen old.jsonl")[0] == 0
    assert "byte for byte" in command("replay subset.manifest.json --work subset.work")[1]
    write(here / "old.jsonl", *rows(10))
    code, _, err = command("replay subset.manifest.json")
    assert code == 1 and "the rows that were seen are others" in err


def test_each_row_is_encoded_once(command, monkeypatch):
    seen = []
    for module in (importlib.import_module(f"fisherlib.text.{name}") for name in ("audit", "masks")):
        encode_row = module.encode_row
        monkeypatch.setattr(module, "encode_row", lambda *call, of=encode_row: seen.append(call[1]) or of(*call))
    assert command(SELECT)[0] == 0
    assert sorted(seen) == list(range(40))


# --- forecast, status, explain, replay ---------------------------------------------------------------------------------


def test_a_forecast_says_what_it_measured_and_its_plan_is_done_exactly(command, here):
    code, out, _ = command("forecast my.jsonl -m my-model -t 200 -o subset.jsonl --method fisher")
    plan = record("plan.json")
    assert code == 0 and plan["forecast"]["rows"] == 40 and plan["forecast"]["rates"]["input_tokens_per_second"] > 0
    features = sum(len(row["response"]) + 1 for row in rows())
    assert plan["forecast"]["response_tokens"] == features and plan["forecast"]["disk_bytes"] == features * (16 * 4 + 16)
    assert "tokens a second on" in out and not (here / "subset.jsonl").exists()
    code, out, _ = command("select --plan plan.json")
    assert code == 0 and "s; the plan said" in out
    assert record()["arguments"]["method"] == "fisher" and record()["got"]["asked"] == {"tokens": 200}
    assert command("select my.jsonl -t 5 --plan plan.json")[0] == 2
    write(here / "my.jsonl", *rows(30))
    code, _, err = command("select --plan plan.json")
    assert code == 12 and "expected the rows that plan.json was made for" in err


def test_nothing_is_said_beside_a_plan_and_an_edited_one_is_refused(command, here):
    assert command("forecast my.jsonl -m my-model -t 200 -o subset.jsonl")[0] == 0
    for more, named in (("--method fisher", "--method"), ("-o other.jsonl", "--out"), ("my.jsonl", "DATA")):
        code, _, err = command(f"select --plan plan.json {more}")
        assert code == 2 and f"got {named} beside it" in " ".join(err.split()) and not (here / "subset.jsonl").exists()
    plan = record("plan.json")
    for edited in (plan | {"arguments": "x"}, plan | {"data": None}, [], {}):
        (here / "plan.json").write_text(json.dumps(edited))
        code, _, err = command("select --plan plan.json")
        assert code == 2 and "expected a plan of `fisherlib forecast`" in " ".join(err.split())


def test_files_of_a_run_that_were_edited_are_no_fault_of_ours(command, here):
    assert command(SELECT)[0] == 0
    for name, edited, verb in (
        ("subset.reasons.jsonl", '{"broken', "explain"),
        ("subset.reasons.jsonl", "[]\n" * 40, "explain"),
        ("subset.reasons.jsonl", "", "report"),
        ("subset.jsonl", "{}\n", "explain"),
        ("subset.run.json", "{}", "status"),
        ("subset.run.json", '{"state": "running"}', "status"),
    ):
        kept = (here / name).read_text()
        (here / name).write_text(edited)
        code, _, err = command(f"{verb} {'subset.jsonl' if verb == 'status' else 'subset.manifest.json'}")
        assert code == 1 and name in err and len(err.splitlines()) == 1 and "fault of ours" not in err
        (here / name).write_text(kept)


def test_a_changed_copy_does_not_hide_the_data_beside_the_manifest(command, here):
    assert command(SELECT)[0] == 0
    (here / "moved").mkdir()
    for name in ("subset.manifest.json", "my.jsonl"):
        (here / "moved" / name).write_bytes((here / name).read_bytes())
    write(here / "my.jsonl", *rows(5))
    assert command("replay moved/subset.manifest.json")[0] == 0


def test_a_stdout_that_is_gone_is_named(here, monkeypatch, capsys):
    from fisherlib.cli import session

    full = io.StringIO()
    full.flush = lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr("sys.stdout", full)
    assert session.run(session.Session("select", {}), lambda at: at.result("a: line")) == 1
    assert "expected to write stdout, but No space left on device" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdout", None)
    assert session.run(session.Session("select", {}), lambda at: at.result("a: line")) == 0


def test_a_manifest_is_replayed_to_the_byte_or_says_what_differs(command, here, monkeypatch):
    assert command(f"{SELECT} --method fisher")[0] == 0
    code, out, _ = command("replay subset.manifest.json")
    assert code == 0 and "byte for byte" in out
    (here / "elsewhere").mkdir()
    for name in ("subset.manifest.json", "my.jsonl"):
        os.rename(here / name, here / "elsewhere" / name)
    assert command("replay elsewhere/subset.manifest.json --work subset.work")[0] == 0
    manifest = fl.Selection.load("elsewhere/subset.manifest.json")
    other = fl.Selection(
        **{name: getattr(manifest, name)[:3] for name in ("indices", "gains", "costs")},
        pool_size=manifest.pool_size,
        settings=manifest.settings | {"run": manifest.settings["run"] | {"subset": {"asked": 200, "sha256": "0" * 64}}},
    )
    other.save("elsewhere/other.manifest.json")
    code, _, err = command("replay elsewhere/other.manifest.json --work subset.work")
    assert code == 1 and "got others: the picks are others, from pick 4 on" in err
    write(here / "elsewhere" / "my.jsonl", *rows(39))
    code, _, err = command("replay elsewhere/subset.manifest.json")
    assert code == 1 and "as it was (SHA-256" in err


def test_a_pick_is_explained_and_a_run_says_how_it_ended(command, here):
    assert command(f"{SELECT} --method fisher")[0] == 0
    code, out, _ = command("explain subset.manifest.json --pick 3")
    assert code == 0 and "pick 3 of" in out and "my.jsonl line" in out and "nats" in out and "⟦" in out
    code, out, _ = command("explain subset.manifest.json --pick 3 --format json")
    why = json.loads(out.splitlines()[-1])
    assert sum(why["tokens"]) == pytest.approx(why["gain"]) and len(why["texts"]) == len(why["tokens"])
    assert command("explain subset.manifest.json --pick 99")[0] == 1
    code, out, _ = command("status subset.jsonl")
    assert code == 0 and "state: done" in out and "features: 40 of 40 rows" in out
    said = record() | {"state": "running", "pid": 2**22 + 1}
    (here / "subset.run.json").write_text(json.dumps(said))
    assert "state: killed: the same command goes on" in command("status subset.jsonl")[1]


def test_a_run_is_found_from_another_folder_and_by_any_of_its_files(command, here, monkeypatch):
    (here / "runs").mkdir()
    (here / "elsewhere").mkdir()
    call = "select my.jsonl -m my-model --method fisher -o runs/subset.jsonl"
    assert command(f"{call} -t 200 -t 300")[0] == 0
    assert "state: done" in command("status runs/subset.300.jsonl")[1]
    assert "state: done" in command("status runs/subset.jsonl")[1]
    assert command("status runs/nothing.300.jsonl")[0] == 1
    monkeypatch.chdir(here / "elsewhere")
    assert "features: 40 of 40 rows" in command("status ../runs/subset.300.jsonl")[1]
    code, out, err = command("report ../runs/subset.200.manifest.json")
    assert (code, err) == (0, "")  # with its features, model and data
    page = (here / "runs" / "subset.200.html").read_text()
    assert "response tokens" in page and 'class="h4" title="' in page
    code, out, err = command("explain ../runs/subset.300.manifest.json --pick 2")
    assert code == 0 and "⟦" in out and "marked: " in err
    os.rename(here / "my-model", here / "gone")
    code, out, err = command("explain ../runs/subset.300.manifest.json --pick 2")
    assert code == 0 and "without the text of the tokens, by number: " in err and "most: 'token " in out


def test_what_a_killed_run_left_half_written_is_swept_and_nothing_else(command, here):
    (here / "subset.work").mkdir()
    gone = [
        here / ".subset.run.json.4194305-1",
        here / ".subset.jsonl.4194305-1",
        here / "subset.work/.picks-a.json.4194305-1",
    ]
    kept = [here / f".subset.html.{os.getpid()}-1", here / ".other.run.json.4194305-1", here / ".subset.txt"]
    for path in gone + kept:
        path.write_text("half")
    assert command(SELECT)[0] == 0
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)


def test_the_command_is_a_module_too():
    done = subprocess.run(
        [sys.executable, "-m", "fisherlib", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout == f"fisherlib {fl.__version__}\n"


def test_the_audit_counts_every_row_without_the_weights(command, here):
    write(here / "my.jsonl", *rows(), {"prompt": "p", "response": "word " * 99})
    (here / "bare").mkdir()
    for file in (here / "my-model").iterdir():
        if file.suffix != ".safetensors":
            (here / "bare" / file.name).write_bytes(file.read_bytes())
    code, out, err = command("audit my.jsonl -m bare -o bad.jsonl")
    assert code == 3 and "<|user|>speak 0<|end|><|assistant|>⟦" in out and "rows: 40 of 41 can be used (1 too long)" in out
    assert "line 41: too long: " in err and json.loads((here / "bad.jsonl").read_text())["line"] == 41


def test_where_no_bar_is_seen_a_line_says_how_far_it_is(capsys, monkeypatch):
    from fisherlib.cli import session

    monkeypatch.setattr(session, "_BEAT", 0.05)

    def work(at):
        with at.step("features", lambda: "3 of 9 examples"):
            time.sleep(0.2)
        raise KeyError("x")

    assert session.run(session.Session("select", {}), work) == 1
    err = capsys.readouterr().err
    assert "features: 3 of 9 examples, 0 s so far" in err
    assert "unexpected KeyError: 'x': this is a fault of ours; --debug shows where" in err and "Traceback" not in err
    session.run(session.Session("select", {}, debug=True), work)
    assert "Traceback" in capsys.readouterr().err
