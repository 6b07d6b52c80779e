"""Files for other trainers: TRL trains on one; the others have the keys that these projects document."""

import json

import pytest
import yaml
from datasets import Dataset, load_dataset

import fisherlib as fl
from fisherlib.text import hand_over

TURNS = [
    {"role": "user", "content": "Who's there?"},
    {"role": "assistant", "content": "Nay, answer me."},
    {"role": "user", "content": "Long live the king!"},
    {"role": "assistant", "content": "Bernardo? ✓"},
]
PAIRS = Dataset.from_list([{"prompt": "2+3", "response": "5", "system": "Count."}, {"prompt": "4+4", "response": "8"}])
CHATS = Dataset.from_list([{"messages": TURNS}])
TEXTS = Dataset.from_list([{"text": "To be, or not to be"}])


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_assistant_turn_becomes_one_completion_for_trl(tmp_path):
    (path,) = hand_over(CHATS, tmp_path, "trl")
    assert lines(path) == [{"prompt": TURNS[:1], "completion": TURNS[1:2]}, {"prompt": TURNS[:3], "completion": TURNS[3:]}]
    (path,) = hand_over(PAIRS, tmp_path, "trl")
    first, second = lines(path)
    assert [turn["role"] for turn in first["prompt"]] == ["system", "user"] and first["completion"][0]["content"] == "5"
    assert second == {
        "prompt": [{"role": "user", "content": "4+4"}],
        "completion": [{"role": "assistant", "content": "8"}],
    }
    assert lines(hand_over(PAIRS, tmp_path, "trl", chat=False)[0])[1] == {"prompt": "4+4", "completion": "8"}
    assert lines(hand_over(TEXTS, tmp_path, "trl")[0]) == TEXTS.to_list()


# What LLaMA-Factory's data/README.md documents as the keys of a description, of its columns and of its tags.
KEYS = {"file_name", "formatting", "columns", "tags"}
COLUMNS = {"prompt", "query", "response", "history", "messages", "system", "tools"}
TAGS = {"role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"}


@pytest.mark.parametrize(("rows", "chat"), [(PAIRS, True), (PAIRS, False), (CHATS, True), (TEXTS, True)])
def test_llama_factory_finds_the_columns_that_its_description_names(tmp_path, rows, chat):
    (tmp_path / "dataset_info.json").write_text('{"other": {"file_name": "other.jsonl"}}')
    data, about = hand_over(rows, tmp_path, "llama-factory", name="mine", chat=chat)
    said = json.loads(about.read_text())
    assert said.pop("other") == {"file_name": "other.jsonl"}
    (name, entry), *rest = said.items()
    assert name == "mine" and not rest and entry["file_name"] == data.name
    assert set(entry) <= KEYS and set(entry["columns"]) <= COLUMNS and set(entry.get("tags", {})) <= TAGS
    for line in lines(data):
        assert set(line) == set(entry["columns"].values())
        if entry.get("formatting") == "sharegpt":
            tags = entry["tags"]
            roles = {tags[key] for key in ("user_tag", "assistant_tag", "system_tag")}
            turns = line[entry["columns"]["messages"]]
            assert all({turn[tags["role_tag"]]} <= roles and turn[tags["content_tag"]] for turn in turns)


@pytest.mark.parametrize(("rows", "kind"), [(PAIRS, "chat_template"), (CHATS, "chat_template"), (TEXTS, "completion")])
def test_axolotl_finds_the_field_that_its_configuration_names(tmp_path, rows, kind):
    data, about = hand_over(rows, tmp_path, "axolotl", name="with: a colon")
    (entry,) = yaml.safe_load(about.read_text())["datasets"]
    assert (entry["path"], entry["ds_type"], entry["type"]) == (data.name, "json", kind)
    assert set(lines(data)[0]) == {entry.get("field_messages") or entry["field"]}
    assert kind == "completion" or (entry["roles_to_train"], entry["train_on_eos"]) == (["assistant"], "turn")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (PAIRS, {"trainer": "keras"}, "expected one of trl, llama-factory, axolotl as the trainer, got 'keras'"),
        (PAIRS.select([]), {"trainer": "trl"}, "expected rows to hand over, got none"),
        (CHATS, {"trainer": "trl", "chat": False}, "row 0: expected no conversation with chat=False"),
        (PAIRS, {"trainer": "axolotl", "chat": False}, "expected chat=True for axolotl"),
        (Dataset.from_list([{"text": ""}]), {"trainer": "trl"}, "row 0: expected a non-empty 'text'"),
        (
            Dataset.from_list([{"prompt": "a", "response": "b", "text": None}, *TEXTS.to_list()]),
            {"trainer": "trl"},
            "expected rows of one kind, which is what a trainer reads, got conversation and text",
        ),
    ],
)
def test_what_no_trainer_could_read_is_refused_and_nothing_is_written(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        hand_over(rows, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_description_that_is_no_json_is_not_written_over(tmp_path):
    (tmp_path / "dataset_info.json").write_text("half a fi")
    with pytest.raises(ValueError, match=r"expected JSON in .*dataset_info\.json"):
        hand_over(PAIRS, tmp_path, "llama-factory")
    assert (tmp_path / "dataset_info.json").read_text() == "half a fi"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # TRL and transformers, not us
def test_trl_learns_the_tokens_that_we_count_and_trains(tmp_path, real):
    """TRL's own tokens are ours; what it learns is the response with its end of turn, and the line break behind that."""
    trl = pytest.importorskip("trl")
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = real[1]
    (path,) = hand_over(PAIRS, tmp_path, "trl")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    trainer = trl.SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, pad_token_id=tokenizer.pad_token_id)),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")),
        processing_class=tokenizer,
    )
    for theirs, ours in zip(trainer.train_dataset, fl.encode(PAIRS, tokenizer), strict=True):
        assert theirs["input_ids"] == ours.input_ids
        learned = [label for label in theirs["labels"] if label != -100]
        counted = [token for token, counts in zip(ours.input_ids, ours.is_response, strict=True) if counts]
        assert tokenizer.decode(learned) == tokenizer.decode(counted) + "\n"
    assert trainer.train().training_loss > 0
