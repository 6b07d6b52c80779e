"""Features on disk: the same as in memory, whole after a kill at any moment, and clear about what is wrong with them."""

import copy
import json
import multiprocessing
import random
import re
import resource
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.features import extract as F
from fisherlib.features import folder as feature_folder

EXACT = {"precision": "float32", "progress": False}
DATA = ("values.bin", "offsets.npy", "trace_weights.bin", "nll.bin", "labels.bin")


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in DATA}


def done(folder):
    return json.loads((folder / "info.json").read_text())["done"]


def many_ids(count=200, longest=20):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(0, longest, (count,), generator=generator).tolist()
    return [torch.randint(1, 97, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 3)


@pytest.fixture
def interrupted(tiny, ids, tmp_path, small_shards, monkeypatch):
    """A folder with 6 of 8 examples done, and the whole one that it was to become."""
    fl.extract_features(tiny, None, ids, out_dir=tmp_path / "whole", **EXACT)
    append = feature_folder.Writer.append

    def stop_at_the_third(self, columns, examples):
        if self.info["done"] == 6:
            raise KeyboardInterrupt
        append(self, columns, examples)

    monkeypatch.setattr(feature_folder.Writer, "append", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path / "part", **EXACT)
    monkeypatch.setattr(feature_folder.Writer, "append", append)
    return tmp_path / "part", tmp_path / "whole"


# --- the same values, however they are kept --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_save_and_load(tiny, ids, tmp_path, dtype):
    features = fl.extract_features(tiny, None, ids, dtype=dtype, **EXACT)
    features.save(tmp_path / "f")
    loaded = fl.TokenFeatures.load(tmp_path / "f")
    for name in ("values", "offsets", "nll", "labels", "trace_weights"):
        assert torch.equal(getattr(loaded, name), getattr(features, name)), name
        assert getattr(loaded, name).dtype == getattr(features, name).dtype
    assert loaded.info == features.info
    assert fl.select(loaded, examples=3).indices.tolist() == fl.select(features, examples=3).indices.tolist()
    with pytest.raises(ValueError, match="does not exist yet"):
        features.save(tmp_path / "f")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    loaded.save(tmp_path / "again")
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "f")


def test_what_is_not_known_is_not_written(tmp_path):
    blocks = [torch.ones(2, 3), torch.zeros(0, 3)]
    fl.TokenFeatures.from_list(blocks, nll=torch.ones(2).double(), info={"path": tmp_path}).save(tmp_path / "a" / "f")
    loaded = fl.TokenFeatures.load(tmp_path / "a" / "f")
    assert loaded.labels is None and loaded.trace_weights is None and loaded.nll.dtype == torch.float64
    assert loaded.info == {"path": str(tmp_path)} and loaded[1].shape == (0, 3)
    assert {p.name for p in (tmp_path / "a" / "f").iterdir()} == {"values.bin", "offsets.npy", "nll.bin", "info.json"}
    fl.TokenFeatures.from_list(blocks[1:]).save(tmp_path / "empty")
    assert fl.TokenFeatures.load(tmp_path / "empty").values.shape == (0, 3)


def test_a_copy_holds_the_values_itself(tiny, ids, tmp_path):
    loaded = fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f", **EXACT)
    copied = copy.deepcopy(loaded)
    assert torch.equal(copied.values, loaded.values) and loaded.maps and not copied.maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", [{"_SHARD_EXAMPLES": 1}, {"_SHARD_EXAMPLES": 3}, {"_SHARD_BYTES": 700}, {}])
def test_extraction_to_disk_equals_that_in_memory(tiny, ids, tmp_path, monkeypatch, shard, dtype):
    for name, value in shard.items():
        monkeypatch.setattr(F, name, value)
    memory = fl.extract_features(tiny, None, ids, dtype=dtype, **EXACT)
    disk = fl.extract_features(tiny, None, ids, dtype=dtype, out_dir=tmp_path / "f", **EXACT)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 1e-2}
    torch.testing.assert_close(disk.values, memory.values, **tolerance)
    for name in ("nll", "trace_weights"):
        torch.testing.assert_close(getattr(disk, name), getattr(memory, name), atol=1e-5, rtol=1e-5)
    assert torch.equal(disk.offsets, memory.offsets) and torch.equal(disk.labels, memory.labels)
    assert disk.info == memory.info and disk.maps


def test_shards_are_bounded_by_examples_and_by_bytes(monkeypatch):
    offsets = torch.tensor([0, 2, 2, 9, 10, 11, 12])
    monkeypatch.setattr(F, "_SHARD_BYTES", 40)
    assert F._shards(offsets, 10) == [(0, 2), (2, 3), (3, 6)]  # example 2 alone is more than fits
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 2)
    assert F._shards(offsets, 10) == [(0, 2), (2, 3), (3, 5), (5, 6)]


# --- resuming --------------------------------------------------------------------------------------------------------


def test_an_interrupted_extraction_goes_on_where_it_stopped(tiny, ids, interrupted, capsys, monkeypatch):
    part, whole = interrupted
    assert done(part) == 6
    with pytest.raises(ValueError, match="all 8 examples in .*, got 6: .*call extract_features again with the same out_dir"):
        fl.TokenFeatures.load(part)
    fl.extract_features(tiny, None, ids, out_dir=part, precision="float32", progress=True)
    bar = capsys.readouterr().err
    assert re.search(r"6/8", bar) and not re.search(r" [0-5]/8", bar)
    assert bytes_of(part) == bytes_of(whole) and json.loads((part / "info.json").read_text())["done"] == 8
    monkeypatch.setattr(F, "at_responses", None)  # complete: the model is not run, and nothing is written
    before = {path.name: path.stat().st_mtime_ns for path in part.iterdir()}
    fl.extract_features(tiny, None, ids, out_dir=part, **EXACT)
    assert before == {path.name: path.stat().st_mtime_ns for path in part.iterdir()}


@pytest.mark.parametrize("name", ["rows.parquet", "offsets.npy"])
def test_a_file_of_the_user_is_not_taken_for_ours(tiny, ids, tmp_path, name):
    """A folder that holds no more than that looks as if an extraction had been killed early: but that leaves a lock."""
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"expected a new out_dir .* with '{name}': choose another"):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path, **EXACT)
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("damage", ["too long", "too short", "missing", "no offsets", "other shards", "not begun"])
def test_files_are_cut_to_what_is_done(tiny, ids, interrupted, damage, monkeypatch):
    part, whole = interrupted
    if damage == "too long":
        for name in ("values.bin", "labels.bin"):
            with (part / name).open("ab") as file:
                file.write(b"of a shard that was cut short" * 1000)
    elif damage == "too short":
        with (part / "nll.bin").open("r+b") as file:
            file.truncate(70)
    elif damage == "missing":
        (part / "labels.bin").unlink()
    elif damage == "no offsets":
        (part / "offsets.npy").write_bytes(b"")
    elif damage == "other shards":
        monkeypatch.setattr(F, "_SHARD_EXAMPLES", 4)
    elif damage == "not begun":
        for path in part.iterdir():
            if path.name not in ("offsets.npy", ".lock"):
                path.unlink()
    features = fl.extract_features(tiny, None, ids, out_dir=part, **EXACT)
    reference = fl.TokenFeatures.load(whole)
    torch.testing.assert_close(features.values, reference.values, atol=1e-5, rtol=1e-5)
    if damage != "other shards":
        assert bytes_of(part) == bytes_of(whole)


def test_another_extraction_is_refused_by_name(tiny, ids, interrupted):
    part, whole = interrupted
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        other.lm_head.weight.mul_(1.001)
    for folder in (part, whole):
        before = bytes_of(folder)
        for model, rows, changed, name in (
            (other, ids, {}, "model_weights"),
            (tiny, ids[::-1], {}, "rows"),
            (tiny, [*ids, [1, 2]], {}, "examples \\(8 there, 9 here\\)"),
            (tiny, ids, {"dtype": torch.bfloat16}, "dtype \\(float32 there, bfloat16 here\\)"),
            (tiny, ids, {"precision": "bfloat16"}, "precision \\(float32 there, bfloat16 here\\)"),
        ):
            with pytest.raises(ValueError, match=f"got another .*{name}.*choose another out_dir") as error:
                fl.extract_features(model, None, rows, out_dir=folder, **EXACT | changed)
            assert "\n" not in str(error.value)
        assert bytes_of(folder) == before


def test_the_side_of_the_padding_is_no_other_extraction(tiny, ids, interrupted):
    part, _ = interrupted
    goes_on = fl.extract_features(tiny, None, ids, out_dir=part, padding_side="left", tokens_per_batch=20, **EXACT)
    whole = fl.extract_features(tiny, None, ids, padding_side="right", **EXACT)
    torch.testing.assert_close(goes_on.values, whole.values, atol=1e-5, rtol=1e-4)  # to rounding; see test_extract.py


def test_positions_count_otherwise_is_another_extraction(tiny, ids, tmp_path):
    """They are no weights: a model whose configuration stretches them has the same file of weights."""
    fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f", **EXACT)
    stretched = copy.deepcopy(tiny)
    for name, buffer in stretched.named_buffers():
        if name.endswith("inv_freq"):
            buffer *= 0.5
    with pytest.raises(ValueError, match="got another .*model_positions"):
        fl.extract_features(stretched, None, ids, out_dir=tmp_path / "f", **EXACT)
    info = json.loads((tmp_path / "f" / "info.json").read_text())
    del info["source"]["model_positions"]
    (tmp_path / "f" / "info.json").write_text(json.dumps(info))
    fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f", **EXACT)  # an older folder does not say


def test_a_tokenizer_that_begins_rows_with_another_token_is_another_extraction(tiny, tmp_path):
    class Beginning:  # its template is the same, its ids are not
        is_fast, chat_template, eos_token, begins = True, None, "", [1]

        def __call__(self, text, **_):
            ids = [*self.begins, *(2 + ord(letter) % 90 for letter in text)]
            spans = [(0, 0)] * len(self.begins) + [(i, i + 1) for i in range(len(text))]
            return {"input_ids": ids, "offset_mapping": spans}

    tokenizer, rows = Beginning(), Dataset.from_list([{"text": "abcd"}])
    first = fl.extract_features(tiny, tokenizer, rows, out_dir=tmp_path / "f", **EXACT)
    assert len(first.values) == 4
    for begins in ([], [2]):
        tokenizer.begins = begins
        with pytest.raises(ValueError, match="got another .*rows"):
            fl.extract_features(tiny, tokenizer, rows, out_dir=tmp_path / "f", **EXACT)


def test_another_chat_template_or_mask_is_another_extraction(real, tiny):
    _, tokenizer = real
    rows = fl.encode(Dataset.from_list([{"prompt": "a", "response": "b"}]), tokenizer)
    source = F.source_of(tiny, tokenizer, rows, "float32")
    other = copy.deepcopy(tokenizer)
    other.chat_template += " "
    assert F.source_of(tiny, other, rows, "float32")["chat_template"] != source["chat_template"] is not None
    rows[0].is_response[1] ^= True
    assert F.source_of(tiny, tokenizer, rows, "float32")["rows"] != source["rows"]


def test_a_subset_is_not_taken_for_the_pool(tiny, ids, tmp_path):
    features = fl.extract_features(tiny, None, ids, **EXACT)
    features.subset(range(len(ids))[::-1]).save(tmp_path / "f")
    with pytest.raises(ValueError, match="rows \\(None there"):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f", **EXACT)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_that_is_done(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 16)
    rows = many_ids()
    fl.extract_features(tiny, None, rows, out_dir=tmp_path / "whole", **EXACT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # no file may grow beyond this: a write fails midway
    try:
        with pytest.raises(OSError, match=r"cannot write .*too large; \d+ of 200 examples are safe\): free some") as error:
            fl.extract_features(tiny, None, rows, out_dir=tmp_path / "f", **EXACT)
        with pytest.raises(OSError, match="cannot write"):
            fl.TokenFeatures.load(tmp_path / "whole").save(tmp_path / "g")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert done(tmp_path / "f") == int(re.search(r"(\d+) of 200", str(error.value))[1]) >= 16
    assert {p.name for p in tmp_path.iterdir()} == {"whole", "f"}
    fl.extract_features(tiny, None, rows, out_dir=tmp_path / "f", **EXACT)
    assert bytes_of(tmp_path / "f") == bytes_of(tmp_path / "whole")


def test_folders_that_cannot_be_used(tiny, ids, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    fl.extract_features(tiny, None, ids, out_dir=tmp_path / "headless", **EXACT)
    (tmp_path / "headless" / "info.json").unlink()
    for folder, kind, message in (
        ("file", ValueError, "expected a folder as out_dir, got the file"),
        ("file/below", OSError, "cannot write features to .*Not a directory"),
        ("photos", ValueError, "with 'cat.jpg': choose another"),
        ("headless", ValueError, "with 'labels.bin': choose another"),
    ):
        with pytest.raises(kind, match=message) as error:
            fl.extract_features(tiny, None, ids, out_dir=tmp_path / folder, **EXACT)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="expected precision"):  # nothing is done yet, so nothing stands in the way
        fl.extract_features(tiny, None, ids, out_dir=tmp_path / "busy", precision="int8")
    with feature_folder.locked(tmp_path / "busy"), pytest.raises(ValueError, match="another process is extracting into"):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path / "busy", **EXACT)
    assert len(fl.extract_features(tiny, None, ids, out_dir=tmp_path / "busy", **EXACT)) == len(ids)
    with pytest.raises(ValueError, match="of one of the dtypes bfloat16, .*got torch.float8_e5m2"):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f8", dtype=torch.float8_e5m2, **EXACT)


def edit_info(folder, **changes):
    path = folder / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_offsets(folder, change):
    offsets = feature_folder.np.load(folder / "offsets.npy")
    feature_folder.np.save(folder / "offsets.npy", change(offsets))


DAMAGE = {
    "no folder": (shutil.rmtree, "No such file"),
    "no info": (lambda f: (f / "info.json").unlink(), "No such file"),
    "broken json": (lambda f: (f / "info.json").write_text('{"format": 1'), "expected a folder of token features"),
    "a list": (lambda f: (f / "info.json").write_text("[]"), "expected a folder of token features"),
    "no format": (lambda f: (f / "info.json").write_text("{}"), "no 'format' in info.json"),
    "future format": (lambda f: edit_info(f, format=2), "it has format 2, this version reads format 1"),
    "odd dtype": (lambda f: edit_info(f, dtype="float3"), "unknown dtype 'float3'"),
    "odd column": (lambda f: edit_info(f, columns={"mood": "float32"}), "unknown columns \\['mood'\\]"),
    "odd columns": (lambda f: edit_info(f, columns=[]), "expected a folder of token features"),
    "odd source": (lambda f: edit_info(f, source=3), "its source is no JSON object"),
    "negative": (lambda f: edit_info(f, tokens=-1), "tokens is -1"),
    "other dim": (lambda f: edit_info(f, dim=17), "bytes in .*values.bin, got"),
    "incomplete": (lambda f: edit_info(f, done=5), "of all 8 examples in .*, got 5"),
    "no values": (lambda f: (f / "values.bin").unlink(), "bytes in .*values.bin, got -1"),
    "short values": (lambda f: (f / "values.bin").write_bytes(b"x"), "bytes in .*values.bin, got 1: it is damaged"),
    "long labels": (lambda f: (f / "labels.bin").open("ab").write(b"xx"), "bytes in .*labels.bin"),
    "no offsets": (lambda f: (f / "offsets.npy").unlink(), "offsets of 8 examples and .*No such file"),
    "broken offsets": (lambda f: (f / "offsets.npy").write_bytes(b"\x93NUMPY"), "offsets of 8 examples and"),
    "empty offsets": (lambda f: (f / "offsets.npy").write_bytes(b""), "offsets of 8 examples and"),
    "few offsets": (lambda f: edit_offsets(f, lambda o: o[:-1]), "offsets of 8 examples and .*shape \\(8,\\)"),
    "float offsets": (lambda f: edit_offsets(f, lambda o: o * 1.0), "float64 of shape"),
    "late offsets": (lambda f: edit_offsets(f, lambda o: o + 1), "do not rise from 0"),
    "falling offsets": (lambda f: edit_offsets(f, lambda o: o[[0, 2, 1, *range(3, 9)]]), "do not rise from 0"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_an_error_of_one_line(tiny, ids, tmp_path, damage):
    fl.extract_features(tiny, None, ids, out_dir=tmp_path / "f", **EXACT)
    harm, message = DAMAGE[damage]
    harm(tmp_path / "f")
    with pytest.raises(ValueError, match=message) as error:
        fl.TokenFeatures.load(tmp_path / "f")
    assert "\n" not in str(error.value) and len(str(error.value)) < 450
    assert re.search("again", str(error.value))  # what to do


# --- memory ----------------------------------------------------------------------------------------------------------


def resident_megabytes():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_reading_a_large_file_in_chunks_stays_small(tmp_path):
    offsets = torch.arange(301) * 256  # 300 MB of float32, of which the disk holds nothing: the files are sparse
    info = feature_folder.describe(torch.float32, 1024, offsets, {}, {}) | {"done": 300}
    feature_folder.Writer(tmp_path, info, offsets)
    features = fl.TokenFeatures.load(tmp_path)
    assert features.values.nbytes == 300 * 2**20
    features[0].sum()
    before, peak = resident_megabytes(), 0.0
    for i in range(300):
        features[i].sum()
        peak = max(peak, resident_megabytes())
        if i % 10 == 9:
            features.release()
    print(f"RSS grew by {peak - before:.1f} MB with release()")
    assert peak - before < 40
    for i in range(300):
        features[i].sum()
    print(f"RSS grew by {resident_megabytes() - before:.1f} MB without")
    assert resident_megabytes() - before > 200  # else the test above measures nothing
    features.release()
    assert resident_megabytes() - before < 40
    assert features.values[12345, 678] == 0  # released is not closed
    fl.TokenFeatures.from_list([torch.ones(2, 3)]).release()  # in memory: nothing to do


# --- killed at any moment --------------------------------------------------------------------------------------------


def extract_slowly(folder):
    """What the processes below run: shards of two examples, so that most of the time is spent writing."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore of the system, which a killed process leaves behind
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, num_key_value_heads=2, max_position_embeddings=64, **sizes)).eval()
    F._SHARD_EXAMPLES = 2
    fl.extract_features(model, None, many_ids(), out_dir=folder, **EXACT)


def start(folder):
    context = multiprocessing.get_context("forkserver")  # imports everything once; each process is a fresh fork of that
    context.set_forkserver_preload([__name__])
    process = context.Process(target=extract_slowly, args=(folder,))
    process.start()
    return process


def undisturbed(folder):
    process = start(folder)
    process.join(60)
    assert process.exitcode == 0
    return bytes_of(folder)


def kill_midway(folder, rng):
    """Start an extraction, let it do a few more shards, and kill it at a random moment. Returns how many are done."""
    before = done(folder) if folder.exists() else 0
    process = start(folder)
    target, limit = before + rng.randrange(2, 50), time.monotonic() + 60
    while process.is_alive() and not ((folder / "info.json").exists() and done(folder) >= target):
        assert time.monotonic() < limit
        time.sleep(0.001)
    time.sleep(rng.random() * 0.02)
    process.kill()
    process.join(60)
    assert done(folder) >= before
    return done(folder)


@pytest.mark.slow
def test_killed_three_times_the_files_are_those_of_an_undisturbed_run(tmp_path):
    whole, rng = undisturbed(tmp_path / "whole"), random.Random()
    reached = [kill_midway(tmp_path / "killed", rng) for _ in range(3)]
    print("killed at", reached, "of 200")
    assert 0 < reached[0] < 200 and reached == sorted(reached)
    assert undisturbed(tmp_path / "killed") == whole
    assert len(fl.TokenFeatures.load(tmp_path / "killed")) == 200


@pytest.mark.slow
def test_two_processes_do_not_write_at_once(tmp_path):
    processes = [start(tmp_path / "f") for _ in range(2)]
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode for process in processes) in ([0, 0], [0, 1])  # 1: refused, the other was writing
    assert bytes_of(tmp_path / "f") == undisturbed(tmp_path / "whole")
