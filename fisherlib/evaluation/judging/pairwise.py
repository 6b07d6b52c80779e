"""Pairwise judging: two texts, both orders, ties allowed; nothing that was judged is ever asked or paid for again."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from fisherlib._door import checked
from fisherlib._quiet import progress_bar
from fisherlib._signals import interruptible
from fisherlib.evaluation.judging.cache import Cache
from fisherlib.evaluation.judging.endpoint import Endpoint, JudgeError, Reply
from fisherlib.text import half_a_character

# All wording is our choice: the paper's judge and its prompt were not available to us.
INSTRUCTION = (
    "You compare two continuations of a text. Answer with one letter: A if continuation A is better, "
    "B if continuation B is better. If they are equally good, answer: tie."
)
QUESTION = "The text:\n{prompt}\n\nContinuation A:\n{a}\n\nContinuation B:\n{b}\n\nWhich continuation is better?"
_BORDER, _END = "\n\nContinuation B:\n", "\n\nWhich continuation is better?"
LENGTHS = (
    "X-Continuation-Lengths"  # a header for judges that are programs, sent only where `shown` would be wrong without it
)
# Solved examples show a small model what an answer looks like. Each answer occurs once.
_SPEECH = "Servant:\nMy lord, the messenger is at the gate.\n\nLord:"
SHOTS = (
    (_SPEECH, "I pray you, bid him enter.", "him enter pray bid. I you,", "A"),
    (_SPEECH, "late? why so comes he Then", "Then why comes he so late?", "B"),
    (_SPEECH, "Let him come in to me.", "Let him come to me here.", "tie"),
)
_ANSWER = re.compile(r"""["'*(\s]*(?:(?:[Aa]nswer|[Cc]ontinuation)\s*:?\s*)?["'*(]*(A|B|[Tt]ie|TIE)["'*).!\s]*""", re.ASCII)
_REFUSAL = re.compile(r"\s*(i'm sorry|i am sorry|sorry,|i can(no|')t\b|i can not\b|i am unable|i'm unable|as an ai\b)", re.I)
DECIDED, LOST = ("A", "B", "tie"), ("malformed", "refused", "timeout")


@dataclass(frozen=True)
class Pair:
    """Two texts after the same prompt. `prompt` numbers it: intervals resample prompts, not judgements."""

    prompt: int
    context: str
    first: str
    second: str
    first_text: str
    second_text: str


@checked
def all_pairs(texts: Mapping[str, Sequence[str]], contexts: Sequence[str]) -> list[Pair]:
    """Every two arms at every prompt. `texts[arm]` has a text for each of `contexts`; raises `ValueError` if not."""
    for arm, said in texts.items():
        if len(said) != len(contexts):
            raise ValueError(f"expected a text for each of {len(contexts)} prompts, got {len(said)} from {arm!r}")
    return [
        Pair(k, context, a, b, texts[a][k], texts[b][k])
        for k, context in enumerate(contexts)
        for a, b in combinations(texts, 2)
    ]


def messages_of(context: str, a: str, b: str) -> list[dict[str, str]]:
    """What a judge is sent: the instruction, three solved examples, the question."""
    turns = [{"role": "system", "content": INSTRUCTION}]
    for prompt, first, second, answer in SHOTS:
        turns.append({"role": "user", "content": QUESTION.format(prompt=prompt, a=first, b=second)})
        turns.append({"role": "assistant", "content": answer})
    return [*turns, {"role": "user", "content": QUESTION.format(prompt=context, a=a, b=b)}]


def shown(question: str, lengths: tuple[int, int] | None = None) -> tuple[str, str]:
    """The texts A and B of the last message that a judge was sent: for judges that are programs.

    `lengths` of the two texts, in characters: without, borders are looked for, and a text that contains one moves it.
    """
    question = question.removesuffix(_END)
    if lengths:
        before, b = question[: len(question) - lengths[1]], question[len(question) - lengths[1] :]
        before = before.removesuffix(_BORDER)
        return before[len(before) - lengths[0] :], b
    _, _, rest = question.rpartition("\n\nContinuation A:\n")
    a, _, b = rest.partition(_BORDER)
    return a, b


def read_answer(reply: Reply) -> str:
    """ "A", "B" or "tie"; "malformed" for anything longer or else, "refused" and "timeout": counted, never guessed."""
    if reply.kind != "text":
        return reply.kind
    if found := _ANSWER.fullmatch(reply.text):
        return found[1] if found[1] in "AB" else "tie"
    return "refused" if _REFUSAL.match(reply.text.replace("’", "'")) else "malformed"


@checked
def judge(
    pairs: Iterable[Pair],
    endpoint: Endpoint,
    *,
    cache: str | Path | None = None,
    temperature: float = 0.0,
    repeats: int = 1,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Ask the judge about each pair in both orders; one row per judgement.

    Columns: `prompt`; `a` and `b`, the arms shown as A and B; `answer` ("A", "B", "tie", "malformed", "refused",
    "timeout"); `said`, the reply itself; `length_a`, `length_b` in characters; `repeat`; `cached`.
    `repeats` asks the same question again, with other seeds: at `temperature` 0 most judges repeat themselves.
    `cache`: a file that each judgement is appended to as soon as it is there. What it holds is not asked again, whatever
    happened to the last run; a timeout is no judgement and is asked again. A judgement is filed under a hash of the model's
    name, all messages, temperature and repeat, but not the address: give two models two names. After Ctrl-C or SIGTERM, a
    line says what is kept.
    Raises `JudgeError` if the judge cannot be asked, which says how much is kept; `ValueError` for a cache that holds
    anything but judgements (it is left as it was) or that another process judges into; `OSError`, before the first question
    where it can be known, if it cannot be written.
    Cost: 2 x pairs x repeats requests, one after the other. Source: extension.
    """
    pairs = list(pairs)
    if strangers := [pair for pair in pairs if not isinstance(pair, Pair)]:
        raise ValueError(f"expected pairs, judging.Pair, got a {type(strangers[0]).__name__} among them: see all_pairs")
    for pair in pairs:
        if broken := half_a_character("".join(map(str, vars(pair).values()))):
            raise ValueError(f"prompt {pair.prompt}: {broken}")
    if repeats < 1:
        raise ValueError(f"expected at least 1 repeat, got {repeats}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"expected a temperature of at least 0, got {temperature}: 0 is the judge's first choice")
    rows: list[dict] = []
    total = 2 * len(pairs) * repeats
    with (
        Cache(cache) as judgements,
        interruptible(lambda: _kept(rows, total, cache)),
        progress_bar(total, progress) as bar,
    ):
        for pair in pairs:
            sides = (pair.first, pair.first_text), (pair.second, pair.second_text)
            for (a, text_a), (b, text_b) in (sides, sides[::-1]):
                for repeat in range(repeats):
                    messages = messages_of(pair.context, text_a, text_b)
                    key = _key(endpoint.model, messages, temperature, repeat)
                    entry = judgements.find(key)
                    cached = entry is not None
                    if entry is None:
                        try:
                            reply = endpoint.ask(
                                messages, temperature=temperature, seed=repeat, **_borders(messages, text_a, text_b)
                            )
                        except JudgeError as error:
                            raise JudgeError(f"{error}. {_kept(rows, total, cache)}") from None
                        entry = {"key": key, "answer": read_answer(reply), "said": reply.text[:200], "model": endpoint.model}
                        judgements.add(entry, lasting=reply.kind != "timeout")
                    about = {"prompt": pair.prompt, "a": a, "b": b, "length_a": len(text_a), "length_b": len(text_b)}
                    kept = {name: entry[name] for name in ("answer", "said")}
                    rows.append(about | kept | {"repeat": repeat, "cached": cached})
                    bar.update()
    columns = ["prompt", "a", "b", "length_a", "length_b", "answer", "said", "repeat", "cached"]
    return pd.DataFrame(rows, columns=columns)


def _borders(messages: list[dict[str, str]], a: str, b: str) -> dict:
    """A header with the lengths of the texts, if one of them contains what looks like a border."""
    if shown(messages[-1]["content"]) == (a, b):
        return {}
    return {"extra_headers": {LENGTHS: f"{len(a)},{len(b)}"}}


def _kept(rows: list[dict], total: int, cache: str | Path | None) -> str:
    done, lost = len(rows), sum(row["answer"] == "timeout" for row in rows)
    if cache is None:
        kept = "none is kept: give a cache="
    else:
        most = f"all but {lost:,} timeouts" if lost else "all"
        kept = f"{most} are kept in {Path(cache).name}: call again with this cache to go on"
    return f"{done:,} of {total:,} judgements were done; {kept}"


def _key(model: str, messages: list[dict[str, str]], temperature: float, repeat: int) -> str:
    decides = json.dumps([model, messages, float(temperature), repeat])
    return hashlib.sha256(decides.encode()).hexdigest()[:24]
