"""The command `fisherlib`: what each verb takes, in words. The work is in the files beside this one.

Results go to stdout, progress and hints to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but rows were skipped
or a quota was not met, 10 no row can be used, 11 it does not fit, 12 files of another run, 130 interrupted.
"""

import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from fisherlib._version import __version__
from fisherlib.cli.options import (
    Columns,
    Data,
    Debug,
    Device,
    Dtype,
    End,
    For,
    Format,
    GroupBy,
    Manifest,
    MayData,
    MayTokens,
    Memory,
    Method,
    Model,
    Out,
    Overwrite,
    Quota,
    Reasons,
    Seed,
    Seen,
    Shape,
    Tokens,
    TooLong,
    Turns,
    Work,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Choose the examples to fine-tune a language model on, for a budget of response tokens.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but rows were skipped or a quota was not met, "
    "10 no row can be used, 11 it does not fit, 12 files of another run, 130 interrupted (the same command goes on).",
)

_INTERRUPTED = "fisherlib: interrupted; the same command goes on from what is kept"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fisherlib {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


class _Ended(Exception):
    """The end of a verb, with its code, when all is said."""


def _do(file: str, work: str, given: dict[str, Any]) -> None:
    """Do the work of a verb in a session, and end with its code."""
    from fisherlib.cli.session import FORMATS, Session, run

    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    how = {name: given.pop(name) for name in ("format", "debug")}
    if how["format"] not in FORMATS:
        raise typer.BadParameter(f"expected --format {', '.join(FORMATS)}, got {how['format']!r}: change it")

    def begin(session: Session) -> None:
        getattr(importlib.import_module(f"fisherlib.cli.{file}"), work)(session, given)

    raise _Ended(run(Session(work.removesuffix("_command"), given, **how), begin))


@app.command(epilog="Example: fisherlib select my.jsonl --model my-model --tokens 20000 --out subset.jsonl")
def select(
    context: typer.Context,
    data: MayData = None,
    model: Model = "smollm2-135m",
    tokens: MayTokens = None,
    out: Out = Path("subset.jsonl"),
    method: Method = "recipe",
    shape: Shape = None,
    columns: Columns = None,
    turns: Turns = "all",
    too_long: TooLong = "error",
    group_by: GroupBy = None,
    quota: Quota = None,
    seen: Seen = None,
    stop: End = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    memory: Memory = None,
    work: Work = None,
    reasons: Reasons = True,
    trainers: For = None,
    overwrite: Overwrite = False,
    plan: Annotated[Path | None, typer.Option(help="Do exactly what a plan.json of `forecast` says.")] = None,
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Choose a subset: the lines of your files, byte for byte, with a manifest and a record beside it.

    By default near-copies are taken out and the rest is drawn by chance at your data's own mix.
    """
    given = _given(locals())
    typed = [one for one in given.pop("context").command.params if _typed(context, one.name)]
    if plan is not None:
        beside = [one.opts[0] if one.opts[0].startswith("-") else "DATA" for one in typed]
        given = _planned(plan, given, [name for name in beside if name not in ("--plan", "--format", "--debug")])
    elif not data or not tokens:
        raise typer.BadParameter("expected DATA and --tokens, or a --plan: name them")
    _do("choose", "select_command", given)


@app.command(
    epilog="Example: fisherlib forecast my.jsonl --model my-model --tokens 20000 --out subset.jsonl --plan plan.json"
)
def forecast(
    data: Data,
    tokens: Tokens,
    model: Model = "smollm2-135m",
    out: Out = Path("subset.jsonl"),
    method: Method = "recipe",
    shape: Shape = None,
    columns: Columns = None,
    turns: Turns = "all",
    too_long: TooLong = "error",
    group_by: GroupBy = None,
    quota: Quota = None,
    seen: Seen = None,
    stop: End = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    memory: Memory = None,
    work: Work = None,
    reasons: Reasons = True,
    trainers: For = None,
    overwrite: Overwrite = False,
    plan: Annotated[Path, typer.Option(help="Where the plan is written.")] = Path("plan.json"),
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Say what `select` will take, measured on a sample: rows, tokens, disk, memory, seconds. Writes a plan."""
    _do("ahead", "forecast_command", _given(locals()) | {"plan": str(plan)})


@app.command(epilog="Example: fisherlib audit my.jsonl --model my-model")
def audit(
    data: Data,
    model: Model = "smollm2-135m",
    shape: Shape = None,
    columns: Columns = None,
    turns: Turns = "all",
    too_long: TooLong = "error",
    show: Annotated[int, typer.Option(help="Rows to show with what counts in brackets.")] = 2,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file for the rows that cannot be used.")] = None,
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Look at every row with the model's chat template: which tokens would be trained on, and which rows cannot be."""
    _do("look", "audit_command", _given(locals()))


@app.command(epilog="Example: fisherlib extract my.jsonl --model my-model --out features")
def extract(
    data: Data,
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("features"),
    shape: Shape = None,
    columns: Columns = None,
    turns: Turns = "all",
    too_long: TooLong = "error",
    device: Device = "auto",
    dtype: Dtype = "auto",
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Compute the features alone, in a folder that Python opens with `TokenFeatures.load`."""
    _do("look", "extract_command", _given(locals()))


@app.command(epilog="Example: fisherlib explain subset.manifest.json --pick 3")
def explain(
    manifest: Manifest,
    pick: Annotated[int, typer.Option(help="Which pick, from 1.")] = 1,
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Say why a row was chosen: what it adds, and what stands nearest to it among the earlier picks."""
    _do("why", "explain_command", _given(locals()))


@app.command(epilog="Example: fisherlib report subset.manifest.json --out subset.html")
def report(
    manifest: Manifest,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page (default: beside the manifest).")] = None,
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Write one HTML page about a subset, for a colleague."""
    _do("back", "report_command", _given(locals()))


@app.command(epilog="Example: fisherlib status subset.jsonl")
def status(
    out: Annotated[Path, typer.Argument(help="The --out of a run, or its run.json.", metavar="OUT")],
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Say how far a run is, or how it ended."""
    _do("back", "status_command", _given(locals()))


@app.command(epilog="Example: fisherlib replay subset.manifest.json")
def replay(
    manifest: Manifest,
    work: Annotated[Path | None, typer.Option(help="Use features that are there, and do not compute them anew.")] = None,
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Do a run again from its manifest and compare: the same bytes, or what differs."""
    _do("back", "replay_command", _given(locals()))


@app.command(
    epilog="Example: fisherlib notebook 00_quickstart -p pool_examples 300. One -p NAME VALUE for each parameter.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def notebook(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A notebook of the course, for instance 00_quickstart.")],
    output: Annotated[Path | None, typer.Option(help="The executed notebook.")] = None,
    format: Format = "auto",
    debug: Debug = False,
) -> None:
    """Run a notebook of the course, in a clone of the project."""
    given = _given(locals())
    given["parameters"] = given.pop("context").args
    _do("look", "notebook_command", given)


def _typed(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call, with their defaults; lists as lists."""
    lists = ("tokens", "quota", "trainers")
    return {
        name: list(value or []) if name in lists or isinstance(value, (list, tuple)) else value
        for name, value in values.items()
        if name != "plan"
    }


def _planned(plan: Path, given: dict[str, Any], beside: list[str]) -> dict[str, Any]:
    """The arguments of a plan. Nothing that it says may be said `beside` it, on the command line."""
    import json

    from fisherlib.cli.session import digest_of

    try:
        said = json.loads(plan.read_text(encoding="utf-8"))
        if said.pop("digest") != digest_of(said):
            raise ValueError("it was edited: run `fisherlib forecast` again")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise typer.BadParameter(f"expected a plan of `fisherlib forecast`, could not read {plan} ({error})") from None
    if beside:
        raise typer.BadParameter(f"expected all from the --plan, got {beside[0]} beside it: leave one out")
    return said["arguments"] | {name: given[name] for name in ("format", "debug")} | {"plan": str(plan)}


def _terminated(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """The door of the command. Ends the process with the code of what was done. SIGTERM ends it as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():  # before all that takes time: PyTorch is not imported yet
        signal.signal(signal.SIGTERM, _terminated)
    os.environ.setdefault("TQDM_LEAVE", "")  # read when tqdm is imported: a bar that is full makes room for the results
    try:
        code = app(arguments, standalone_mode=False, prog_name="fisherlib")
        if code == 130:  # typer's own, for an interruption before a verb began its work: without a word
            raise KeyboardInterrupt
    except _Ended as ended:
        (code,) = ended.args
    except typer.TyperException as error:  # wrong usage
        getattr(error, "show", lambda: print(f"fisherlib: {error.format_message()}", file=sys.stderr))()
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        print(_INTERRUPTED, file=sys.stderr)
        code = 130
    sys.exit(code or 0)
