"""All rows of a pool under the mask audit: which can be trained on, and of each other row the reason."""

from collections import Counter
from dataclasses import dataclass, field

from datasets import Dataset
from tqdm.auto import tqdm

from fisherlib._door import checked
from fisherlib._quiet import hidden
from fisherlib._types import Tokenizer
from fisherlib.text.masks import Encoded, check_encoding, encode_row
from fisherlib.text.rows import SOURCE, as_stored, columns_of

NO_RESPONSE, TOO_LONG, TEMPLATE, TRUNCATED = "no response tokens", "too long", "chat template", "truncated"


@dataclass(frozen=True, eq=False)
class Audit:
    """Of each row how many tokens it has (`lengths`) and how many of them count (`responses`), and what keeps it from use.

    One of `reasons` is {"row", "file", "line", "id", "code", "reason"}; `code` is "no response tokens" (or no text at
    all), "too long", "chat template" (the template refuses the row, or the response cannot be told in what it writes) or
    "truncated"; a row that was truncated is used. `usable`: the rows that are left, in their order. `encoded`: these, as
    `encode` has them, if they were kept.
    """

    lengths: list[int]
    responses: list[int]
    reasons: list[dict]
    encoded: list[Encoded] = field(default_factory=list, repr=False)

    @property
    def usable(self) -> list[int]:
        out = {reason["row"] for reason in self.reasons if reason["code"] != TRUNCATED}
        return [i for i in range(len(self.lengths)) if i not in out]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each reason has."""
        return dict(Counter(reason["code"] for reason in self.reasons))


@checked
def audit_rows(
    rows: Dataset,
    tokenizer: Tokenizer,
    *,
    max_tokens: int | None = None,
    turns: str = "all",
    too_long: str = "error",
    keep: bool = False,
    progress: bool | None = None,
) -> Audit:
    """Encode every row as `encode` does, and note what it would raise instead of raising it.

    With `too_long="error"` a row that is too long is noted, and not used. `keep`: keep what is encoded, about 50 bytes a
    token, for `extract_features(encoded=)`. Time: that of `encode`. Raises `ValueError` for options that are not known.
    """
    rows = as_stored(rows)
    check_encoding(tokenizer, turns, too_long)
    lengths, responses, reasons, encoded = [], [], [], []
    shown = tqdm(columns_of(rows, rows.column_names), total=len(rows), unit="row", disable=hidden(progress), mininterval=1)
    for number, row in enumerate(shown):
        code = reason = None
        try:
            example = encode_row(row, number, tokenizer, turns, max_tokens, "drop" if too_long == "error" else too_long)
        except ValueError as error:
            example, code, reason = Encoded([], []), TEMPLATE, str(error).removeprefix(f"row {number}: ")
        if example.cut_from:
            code = TRUNCATED if too_long == "truncate" else TOO_LONG
            reason = f"{example.cut_from:,} tokens, where the model takes {max_tokens:,}"
        if code in (None, TRUNCATED) and not any(example.is_response):
            code, reason = NO_RESPONSE, reason or "none of its tokens count: the chat template may drop what it answers"
        lengths.append(len(example.input_ids))
        responses.append(sum(example.is_response))
        if keep and code in (None, TRUNCATED):
            encoded.append(example)
        if code is not None:
            source, known = row.get(SOURCE) or {}, row.get("id")
            where = {"row": number, "file": source.get("file"), "line": source.get("line")}
            reasons.append({**where, "id": None if known is None else str(known), "code": code, "reason": reason})
    return Audit(lengths, responses, reasons, encoded)
