"""The options that several verbs take, each said once."""

from pathlib import Path
from typing import Annotated

import typer

_OF_QUOTA = (
    "What a group gets of the budget: code=0.2 (a share), code=0.1:0.5 (at least, at most), code=0.1: or code=:0.5 "
    "(only one of them), code=4000 (above 1: tokens). May be repeated. Or pool: each group as the data have it."
)
Data = Annotated[list[str], typer.Argument(help="Files of examples, a folder of them, or a dataset id.", metavar="DATA")]
MayData = Annotated[
    list[str] | None, typer.Argument(help="Files of examples, a folder of them, or a dataset id.", metavar="DATA")
]
Model = Annotated[str, typer.Option("--model", "-m", help="A model's id or folder.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]
Tokens = Annotated[
    list[float], typer.Option("--tokens", "-t", metavar="N", help="Response tokens; several for several subsets.")
]
MayTokens = Annotated[
    list[float] | None, typer.Option("--tokens", "-t", metavar="N", help="Response tokens; several for several subsets.")
]
Method = Annotated[str, typer.Option(help="recipe, fisher or uniform.")]
Shape = Annotated[str | None, typer.Option(help="The shape of the rows, if it is not seen: alpaca, sharegpt, ...")]
Columns = Annotated[str | None, typer.Option(help="Which columns are ours: prompt=q,response=a.")]
Turns = Annotated[str, typer.Option(help="Answers that count: all, or the last.")]
TooLong = Annotated[str, typer.Option(help="Rows beyond the model's context: error, drop or truncate.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str, typer.Option(help="Of the model's weights: auto, float32, bfloat16 or float16.")]
Memory = Annotated[float | None, typer.Option(help="Gigabytes to select with.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Seen = Annotated[str | None, typer.Option(help="Rows that were trained on already: they count as known.")]
GroupBy = Annotated[str | None, typer.Option(help="The column that says which group a row is of.")]
Quota = Annotated[list[str] | None, typer.Option(help=_OF_QUOTA, metavar="GROUP=SHARE")]
End = Annotated[float | None, typer.Option("--stop", help="End when a pick gains less than this share of the first.")]
Work = Annotated[Path | None, typer.Option(help="Where features and half-done work are kept (default: beside --out).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an --out that no run of ours wrote.")]
Reasons = Annotated[bool, typer.Option(help="Write why each row was chosen or not: another pass over the pool.")]
For = Annotated[
    list[str] | None, typer.Option("--for", help="Files for a trainer too: trl, llama-factory or axolotl. May be repeated.")
]
Format = Annotated[str, typer.Option(help="auto, human, json (a line each) or quiet.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Manifest = Annotated[Path, typer.Argument(help="subset.manifest.json", metavar="MANIFEST")]
