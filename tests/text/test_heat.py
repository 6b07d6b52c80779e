"""The pieces of a row join to its text, and carry what their tokens brought."""

import pytest
from datasets import Dataset

import fisherlib as fl
from fisherlib.text import Encoded, heat
from tests.cli.things import TEMPLATE


@pytest.fixture(scope="module")
def tokenizer():
    """Of single bytes: a letter that is no ASCII has several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", additional_special_tokens=["<|user|>"])
    made.chat_template = TEMPLATE
    return made


@pytest.mark.parametrize("answer", ["plain words", "né à Zürich 🦜 שלום", "🦜", "�x", "a\n b"])
def test_pieces_join_to_the_text_and_sums_are_kept(tokenizer, answer):
    (example,) = fl.encode(Dataset.from_list([{"prompt": "é?", "response": answer}]), tokenizer)
    values = [float(k + 1) for k in range(sum(example.is_response))]
    found = heat(example, tokenizer, values)
    assert "".join(text for text, _ in found) == tokenizer.decode(example.input_ids)
    counted = [(text, value) for text, value in found if value is not None]
    assert "".join(text for text, _ in counted) == answer + "<|end|>" and sum(v for _, v in counted) == sum(values)
    assert all(len(text) >= 1 for text, _ in found)
    with pytest.raises(ValueError, match=f"for each of {len(values)} response tokens, got 1: give the tokenizer"):
        heat(example, tokenizer, [1.0])


def test_a_space_in_front_of_a_word_is_not_lost():
    """Tokenizers of SentencePiece drop it where a token is decoded alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"<unk>": 0, "▁to": 1, "▁be": 2, "▁not": 3}, unk_token="<unk>"))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    words = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>")
    assert words.decode([2]) == "be"
    found = heat(Encoded([1, 2, 3], [False, True, True]), words, [1.0, 2.0])
    assert found == [("to", None), (" be", 1.0), (" not", 2.0)]
