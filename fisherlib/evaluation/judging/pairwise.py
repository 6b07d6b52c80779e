"""Pairwise judging: two texts, both orders, ties allowed; nothing that was judged is ever asked or paid for again."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from fisherlib._files import replacing
from fisherlib._quiet import progress_bar
from fisherlib.evaluation.judging.endpoint import Endpoint, JudgeError, Reply

# All wording is our choice: the paper's judge and its prompt were not available to us.
INSTRUCTION = (
    "You compare two continuations of a text. Answer with one letter: A if continuation A is better, "
    "B if continuation B is better. If they are equally good, answer: tie."
)
QUESTION = "The text:\n{prompt}\n\nContinuation A:\n{a}\n\nContinuation B:\n{b}\n\nWhich continuation is better?"
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


def shown(question: str) -> tuple[str, str]:
    """The texts A and B of the last message that a judge was sent: for judges that are programs."""
    _, _, rest = question.rpartition("\n\nContinuation A:\n")
    a, _, rest = rest.partition("\n\nContinuation B:\n")
    return a, rest.rpartition("\n\nWhich continuation is better?")[0]


def read_answer(reply: Reply) -> str:
    """ "A", "B" or "tie"; "malformed" for anything longer or else, "refused" and "timeout": counted, never guessed."""
    if reply.kind != "text":
        return reply.kind
    if found := _ANSWER.fullmatch(reply.text):
        return found[1] if found[1] in "AB" else "tie"
    return "refused" if _REFUSAL.match(reply.text.replace("’", "'")) else "malformed"


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
    name, all messages, temperature and repeat, but not the address: give two models two names.
    Raises `JudgeError` if the judge cannot be asked, which says how much is kept; `ValueError` for a damaged cache.
    Cost: 2 x pairs x repeats requests, one after the other. Source: extension.
    """
    pairs, known = list(pairs), _read_cache(cache)
    if repeats < 1:
        raise ValueError(f"expected at least 1 repeat, got {repeats}")
    rows: list[dict] = []
    with progress_bar(2 * len(pairs) * repeats, progress) as bar:
        for pair in pairs:
            sides = (pair.first, pair.first_text), (pair.second, pair.second_text)
            for (a, text_a), (b, text_b) in (sides, sides[::-1]):
                for repeat in range(repeats):
                    messages = messages_of(pair.context, text_a, text_b)
                    key = _key(endpoint.model, messages, temperature, repeat)
                    cached = key in known
                    if not cached:
                        try:
                            reply = endpoint.ask(messages, temperature=temperature, seed=repeat)
                        except JudgeError as error:
                            raise _stopped(error, len(rows), 2 * len(pairs) * repeats, cache) from None
                        known[key] = {"key": key, "answer": read_answer(reply), "said": reply.text[:200]}
                        if reply.kind != "timeout":
                            _append(cache, known[key] | {"model": endpoint.model})
                    about = {"prompt": pair.prompt, "a": a, "b": b, "length_a": len(text_a), "length_b": len(text_b)}
                    kept = {name: known[key][name] for name in ("answer", "said")}
                    rows.append(about | kept | {"repeat": repeat, "cached": cached})
                    bar.update()
    columns = ["prompt", "a", "b", "length_a", "length_b", "answer", "said", "repeat", "cached"]
    return pd.DataFrame(rows, columns=columns)


def _stopped(error: JudgeError, done: int, total: int, cache: str | Path | None) -> JudgeError:
    kept = (
        f"all are kept in {Path(cache).name}: call again with this cache to go on"
        if cache
        else "none is kept: give a cache="
    )
    return JudgeError(f"{error}. {done:,} of {total:,} judgements were done; {kept}")


def _key(model: str, messages: list[dict[str, str]], temperature: float, repeat: int) -> str:
    decides = json.dumps([model, messages, float(temperature), repeat])
    return hashlib.sha256(decides.encode()).hexdigest()[:24]


def _read_cache(cache: str | Path | None) -> dict[str, dict]:
    if cache is None or not Path(cache).exists():
        return {}
    whole, _, torn = Path(cache).read_bytes().rpartition(b"\n")  # a run was killed while it wrote: that one is asked again
    if torn:
        with replacing(Path(cache)) as scratch:
            scratch.write_bytes(whole + b"\n" if whole else b"")
    known = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            known[entry["key"]] = {name: entry[name] for name in ("key", "answer", "said")}
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{Path(cache).name} line {number}: expected a judgement, got something else: remove or name another cache"
            ) from None
    return known


def _append(cache: str | Path | None, entry: dict) -> None:
    if cache is not None:
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        with Path(cache).open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
