"""Which chat templates are understood, and which are refused because a header would count as response."""

import copy

import pytest
from datasets import Dataset

import fisherlib as fl

pytestmark = pytest.mark.usefixtures("as_a_user")

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CLAUSE = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
UNDERSTOOD = {  # template: what counts of one answer, and of two
    "chatml": (CHATML + CLAUSE, "Nobody<|im_end|>", "Nobody<|im_end|>Yes<|im_end|>"),
    "llama2-like": (LLAMA2, " Nobody <|endoftext|>", " Nobody <|endoftext|> Yes <|endoftext|>"),
    "mistral-like": (MISTRAL, "Nobody<|endoftext|>", "Nobody<|endoftext|>Yes<|endoftext|>"),
    "gemma-like": (GEMMA, "Nobody<end_of_turn>", "Nobody<end_of_turn>Yes<end_of_turn>"),
    # SmolLM's tokens cut the marks of other models into pieces: one reaches from this end into the next header
    "llama3-like": (LLAMA3, "Nobody<|eot_id|>", "Nobody<|eot_id|><Yes<|eot_id|>"),
}
IGNORING = {
    "chatml": (CHATML, "<|im_start|>assistant"),
    "gemma-like": (GEMMA.split("{% if add")[0], "<start_of_turn>model"),
    "llama3-like": (LLAMA3.split("{% if add")[0], "<|start_header_id|>assistant<|end_header_id|>"),
    "vicuna-like": (
        "{% for m in messages %}{{ 'USER: ' if m.role == 'user' else ' ASSISTANT: ' }}{{ m.content }}{% endfor %}",
        "ASSISTANT:",
    ),
}
ONE = Dataset.from_list([{"prompt": "Who?", "response": "Nobody"}])
TWO = Dataset.from_list(
    [
        {
            "messages": [
                {"role": role, "content": content}
                for role, content in [("user", "Who?"), ("assistant", "Nobody"), ("user", "No?"), ("assistant", "Yes")]
            ]
        }
    ]
)


@pytest.fixture(scope="module")
def with_template(real):
    """One copy of the shipped tokenizer, which takes each template in turn."""
    tokenizer = copy.deepcopy(real[1])

    def make(template):
        tokenizer.chat_template, tokenizer.eos_token = template, "<|endoftext|>"
        return tokenizer

    return make


def counted(rows, tokenizer):
    (example,) = fl.encode(rows, tokenizer)
    return tokenizer.decode([i for i, counts in zip(example.input_ids, example.is_response, strict=True) if counts])


@pytest.mark.parametrize(("template", "one", "two"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_an_answer_and_its_end_count_and_no_header_does(with_template, template, one, two):
    tokenizer = with_template(template)
    assert counted(ONE, tokenizer) == one and counted(TWO, tokenizer) == two


@pytest.mark.parametrize(("template", "header"), IGNORING.values(), ids=IGNORING)
@pytest.mark.parametrize("rows", [ONE, TWO], ids=["pair", "conversation"])
def test_a_template_that_ignores_the_generation_prompt_is_refused_by_name(with_template, template, header, rows):
    for door in (fl.encode, fl.MaskAudit):
        with pytest.raises(ValueError, match="row 0: .*add_generation_prompt.*this one ignores that, so its ") as error:
            door(rows, with_template(template))
        assert repr(header) in str(error.value) and "\n" not in str(error.value)


def test_an_answer_that_looks_like_the_header_does_not_hide_it(with_template):
    for response in ("<", "<|im_start|>assistant\nx", "0", "1"):
        with pytest.raises(ValueError, match="this one ignores that"):
            fl.encode([{"prompt": "p", "response": response}], with_template(CHATML))
        assert fl.encode([{"prompt": "p", "response": response}], with_template(LLAMA2))


def test_a_template_that_always_writes_the_next_header_is_refused(with_template):
    with pytest.raises(ValueError, match="writes more after an answer, such as the header of the next"):
        fl.encode(ONE, with_template(CHATML + "<|im_start|>assistant\n"))


def test_what_a_template_refuses_is_said_with_the_row(with_template):
    picky = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHATML
        + CLAUSE
    )
    rows = [*ONE, {"system": "s", "prompt": "p", "response": "r"}]
    with pytest.raises(ValueError, match="row 1: System role not supported: the chat template refuses this conversation"):
        fl.encode(rows, with_template(picky))


def test_control_tokens_in_a_text_are_counted_not_refused(real):
    tokenizer = real[1]
    rows = Dataset.from_list(
        [
            {"prompt": "plain", "response": "plain", "system": None},
            {"prompt": "x <|im_end|>", "response": "r"},
            {"prompt": "x", "response": "<|endoftext|> r"},
            {"prompt": "x < | im_end |>", "response": "r"},
            {"prompt": "x", "response": "r", "system": "<|im_start|>"},
        ]
    )
    audit = fl.MaskAudit(rows, tokenizer)
    assert audit.control == [1, 2, 4]
    note = "the text of 3 rows, first [1, 2, 4], holds control tokens, encoded as such"
    assert note in repr(audit) and note in audit._repr_html_()
    assert fl.encode(rows, tokenizer)[1].input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 4  # it is true
    assert "control" not in repr(fl.MaskAudit(rows.select([0, 3]), tokenizer))
    turns = [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "r"}]
    assert fl.MaskAudit([{"messages": turns}, {"text": "t"}], tokenizer).control == [0]
