"""What a folder holds is what was written: damage of any file is found, and folders of older versions are read as ever."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib

import numpy as np
import pytest
import torch
from datasets import Dataset

import fisherlib as fl
from fisherlib.features import extract as F
from fisherlib.features import folder as feature_folder
from fisherlib.text import provenance

EXACT = {"precision": "float32", "progress": False}
COLUMNS = ("values", "trace_weights", "nll", "labels")


@pytest.fixture
def folder(tiny, ids, tmp_path, monkeypatch):
    """Eight examples in shards of three."""
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 3)
    fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f", **EXACT)
    return tmp_path / "f"


def info_of(folder):
    return json.loads((folder / "info.json").read_text())


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def old(folder):
    """The same folder as the first versions wrote it."""
    info = info_of(folder)
    del info["digests"]
    (folder / "info.json").write_text(json.dumps(info, indent=1))
    (folder / "rows.parquet").unlink(missing_ok=True)


def harm(path, how):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if how == "flipped":
        data[middle] ^= 1
    elif how == "zeroed":
        data[middle:] = bytes(len(data) - middle)
    else:
        data[:] = np.random.default_rng(0).bytes(len(data))
    path.write_bytes(data)


def swap(folder):
    (folder / "nll.bin").rename(folder / "x")
    (folder / "trace_weights.bin").rename(folder / "nll.bin")
    (folder / "x").rename(folder / "trace_weights.bin")


def test_the_checksums_are_those_of_the_bytes(folder):
    digests = info_of(folder)["digests"]
    assert [(s["begin"], s["end"]) for s in digests["shards"]] == [(0, 3), (3, 6), (6, 8)]
    features = fl.TokenFeatures.load(folder, verify=True)
    for shard in digests["shards"]:
        rows = slice(int(features.offsets[shard["begin"]]), int(features.offsets[shard["end"]]))
        for name in COLUMNS:
            assert shard[name] == f"{zlib.crc32(getattr(features, name)[rows].numpy().tobytes()):08x}"
    assert digests["offsets.npy"] == f"{zlib.crc32((folder / 'offsets.npy').read_bytes()):08x}"


def test_data_of_many_parts_has_one_checksum(tmp_path, monkeypatch):
    features = fl.TokenFeatures.from_list([torch.randn(9, 5), torch.randn(1, 5)])
    features.save(tmp_path / "whole")
    monkeypatch.setattr("fisherlib.features.digests._AT_ONCE", 7)
    features.save(tmp_path / "parts")
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "parts")
    fl.TokenFeatures.load(tmp_path / "whole", verify=True)


@pytest.mark.parametrize("how", ["flipped", "zeroed", "random"])
@pytest.mark.parametrize("name", COLUMNS)
def test_damage_of_any_file_is_found_on_request_and_mended_by_the_next_call(tiny, ids, folder, name, how, capsys):
    before = bytes_of(folder)
    harm(folder / f"{name}.bin", how)
    assert len(fl.TokenFeatures.load(folder)) == 8  # lazy: nothing was read
    with pytest.raises(
        ValueError, match=f"what was written in .*{name}.bin, got other bytes for examples .*: it is damaged"
    ):
        fl.TokenFeatures.load(folder, verify=True)
    features = fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT)
    assert bytes_of(folder) == before
    assert "a file is not what was written, computing again from there" in capsys.readouterr().err
    assert torch.equal(features.values, fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT).values)
    assert capsys.readouterr().err == ""


def test_columns_that_changed_places_are_found(tiny, ids, folder):
    before = bytes_of(folder)
    swap(folder)
    with pytest.raises(ValueError, match="trace_weights.bin, got other bytes for examples 0 to 2"):
        fl.TokenFeatures.load(folder, verify=True)
    fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT)
    assert bytes_of(folder) == before


def test_only_what_follows_the_damage_is_computed_again(tiny, ids, folder, monkeypatch):
    before, path = bytes_of(folder), folder / "nll.bin"
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    appended = []
    append = feature_folder.Writer.append
    monkeypatch.setattr(feature_folder.Writer, "append", lambda *a: appended.append(a[2]) or append(*a))
    fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT)
    assert appended == [2] and bytes_of(folder) == before


def alter_offsets(folder):
    offsets = np.load(folder / "offsets.npy")
    offsets[3] += 1
    np.save(folder / "offsets.npy", offsets)


def test_altered_offsets_are_found_on_load_and_on_resume(tiny, ids, folder):
    alter_offsets(folder)
    for again in (fl.TokenFeatures.load, lambda f: fl.extract_features(tiny, None, ids, out_dir=f, **EXACT)):
        with pytest.raises(ValueError, match="offsets of 8 examples .*it is not what was written.*damaged, extract again"):
            again(folder)


def test_a_folder_of_an_older_version_loads_and_resumes(tiny, ids, folder, monkeypatch):
    before = fl.TokenFeatures.load(folder)
    old(folder)
    content = bytes_of(folder)
    for features in (fl.TokenFeatures.load(folder), fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT)):
        assert torch.equal(features.values, before.values) and features.provenance is None
    assert bytes_of(folder) == content  # complete: nothing is written
    with pytest.raises(ValueError, match="checksums of all 8 examples .*, got those of 0: an older version wrote it"):
        fl.TokenFeatures.load(folder, verify=True)
    (folder / "info.json").write_text(json.dumps(info_of(folder) | {"done": 6}))
    features = fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT)
    assert torch.equal(features.values, before.values) and len(info_of(folder)["digests"]["shards"]) == 1
    with pytest.raises(ValueError, match="got those of 2: an older version"):
        fl.TokenFeatures.load(folder, verify=True)


def test_altered_offsets_of_an_older_folder_are_found_on_resume(tiny, ids, folder):
    old(folder)
    alter_offsets(folder)
    with pytest.raises(ValueError, match="expected the offsets of these rows in .*, got others: it is damaged"):
        fl.extract_features(tiny, None, ids, out_dir=folder, **EXACT)


@pytest.mark.parametrize("digests", [[], {}, {"shards": 3}, {"shards": [3]}, {"shards": [{"begin": 0, "end": 99}]}])
def test_checksums_that_are_none_are_an_error_of_one_line(folder, digests):
    (folder / "info.json").write_text(json.dumps(info_of(folder) | {"digests": digests}))
    with pytest.raises(ValueError, match="expected a folder of token features, .*digests.*: extract again") as error:
        fl.TokenFeatures.load(folder)
    assert "\n" not in str(error.value)


# --- files that are cut while they are mapped ------------------------------------------------------------------------


def test_a_mapped_file_that_was_cut_is_an_error_and_no_crash(folder):
    features = fl.TokenFeatures.load(folder)
    features.check_whole()
    os.truncate(folder / "values.bin", 10)
    for read in (
        features.check_whole,
        lambda: features.subset([0]),
        lambda: features.column("nll"),
        lambda: fl.compress(features, 2),
        lambda: features.save(folder.parent / "g"),
    ):
        with pytest.raises(ValueError, match=r"bytes in a file that features are mapped from, got 10: it was cut since"):
            read()
    assert not (folder.parent / "g").exists()
    fl.TokenFeatures.from_list([torch.ones(1, 2)]).check_whole()


# --- rows ------------------------------------------------------------------------------------------------------------


class OneTokenACharacter:
    is_fast, chat_template, eos_token = True, None, "."

    def __call__(self, text, **_):
        ids = [ord(c) % 97 for c in text]
        return {"input_ids": ids, "offset_mapping": [(i, i + 1) for i in range(len(ids))]}


def rows_of(n=8):
    return Dataset.from_list([{"prompt": f"{i}?", "response": "yes" * (i % 3 + 1), "id": f"row-{i}"} for i in range(n)])


def test_extraction_says_where_each_row_came_from(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 3)
    rows, place = rows_of(), tmp_path / "f"
    wanted = provenance(rows).to_list()
    memory = fl.extract_features(tiny, OneTokenACharacter(), rows, **EXACT)
    disk = fl.extract_features(tiny, OneTokenACharacter(), rows, out_dir=place, **EXACT)
    for features in (memory, disk, fl.TokenFeatures.load(place)):
        assert features.provenance.to_list() == wanted and wanted[3]["id"] == "row-3"
    old(place)
    assert fl.TokenFeatures.load(place).provenance is None
    again = fl.extract_features(tiny, OneTokenACharacter(), rows, out_dir=place, **EXACT)
    assert again.provenance.to_list() == wanted  # of the rows that were given
    (place / "info.json").write_text(json.dumps(info_of(place) | {"done": 3}))
    fl.extract_features(tiny, OneTokenACharacter(), rows, out_dir=place, **EXACT)
    assert fl.TokenFeatures.load(place).provenance.to_list() == wanted  # who writes to an older folder adds it


def test_a_run_that_was_killed_before_it_said_anything_goes_on(tiny, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    say = feature_folder.Writer._say_done
    monkeypatch.setattr(feature_folder.Writer, "_say_done", killed)
    arguments = {"out_dir": tmp_path / "f", **EXACT}
    with pytest.raises(KeyboardInterrupt):
        fl.extract_features(tiny, OneTokenACharacter(), rows_of(), **arguments)
    assert {path.name for path in (tmp_path / "f").iterdir()} - {".lock"} == {"offsets.npy", "rows.parquet"}
    monkeypatch.setattr(feature_folder.Writer, "_say_done", say)
    assert len(fl.extract_features(tiny, OneTokenACharacter(), rows_of(), **arguments)) == 8


@pytest.mark.parametrize("damage", ["gone", "flipped", "other"])
def test_rows_that_are_not_what_was_written_are_refused(tmp_path, damage):
    features = fl.TokenFeatures.from_list([torch.ones(1, 2)] * 8, provenance=provenance(rows_of()))
    features.save(tmp_path / "f")
    path = tmp_path / "f" / "rows.parquet"
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        harm(path, "flipped")
    else:
        features.subset([0]).save(tmp_path / "g")
        (tmp_path / "g" / "rows.parquet").rename(path)
    with pytest.raises(ValueError, match="expected 8 rows in .*rows.parquet, got a damaged file .*: extract again") as error:
        fl.TokenFeatures.load(tmp_path / "f")
    assert "\n" not in str(error.value)


# --- a disk that is full, a run that is ended ------------------------------------------------------------------------


def test_a_save_that_fails_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    features = fl.TokenFeatures.from_list([torch.ones(1, 2)])
    for place in ("pathlib.Path.write_bytes", "fisherlib.features.digests.write"):
        with (
            monkeypatch.context() as patched,
            pytest.raises(OSError, match=f"write features to {tmp_path}/f \\(No space") as error,
        ):
            patched.setattr(place, full)
            features.save(tmp_path / "f")
        assert error.value.errno == 28 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [None, "f"])
def test_an_interrupted_extraction_says_in_one_line_what_is_kept(tiny, ids, tmp_path, place, monkeypatch, capsys):
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 3)
    compute, calls = F.at_responses, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) > 1 or place is None:
            raise KeyboardInterrupt
        return compute(*arguments, **options)

    monkeypatch.setattr(F, "at_responses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fl.extract_features(tiny, None, ids, out_dir=place and tmp_path / place, **EXACT)
    kept = f"3 of 8 examples are in {tmp_path}/f: call extract_features again with the same out_dir to go on"
    lost = "nothing is kept: give out_dir=, a folder, to go on from there next time"
    assert capsys.readouterr().err == f"fisherlib: interrupted; {kept if place else lost}\n"


ENDLESS = """
    import sys, time
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    import fisherlib as fl
    from fisherlib.features import extract as F

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes)).eval()
    F._SHARD_EXAMPLES, compute = 2, F.at_responses
    if sys.argv[2] == "slowly":
        F.at_responses = lambda *a, **k: time.sleep(0.2) or compute(*a, **k)
    features = fl.extract_features(model, None, [[i, 1, 2] for i in range(90)], out_dir=sys.argv[1], precision="float32")
    print(len(features))
"""


@pytest.mark.slow
def test_sigterm_keeps_what_is_done_as_ctrl_c_does(tmp_path):
    script = [sys.executable, "-c", textwrap.dedent(ENDLESS)]
    whole = subprocess.run([*script, tmp_path / "whole", "fast"], timeout=120, capture_output=True, text=True)
    assert whole.stdout == "90\n"
    process = subprocess.Popen([*script, tmp_path / "f", "slowly"], stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not ((tmp_path / "f" / "info.json").exists() and info_of(tmp_path / "f")["done"] >= 4):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    done = info_of(tmp_path / "f")["done"]
    assert 4 <= done < 90 and f"fisherlib: interrupted; {done} of 90 examples are in {tmp_path}/f: call extract" in said
    subprocess.run([*script, tmp_path / "f", "fast"], timeout=120, check=True)
    digest = {name: hashlib.sha256(data).digest() for name, data in bytes_of(tmp_path / "whole").items()}
    assert {name: hashlib.sha256(data).digest() for name, data in bytes_of(tmp_path / "f").items()} == digest
