"""A feature is the head's input, one position before its label, whatever the batch."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, BloomConfig, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig, PhiConfig

import fisherlib as fl
from fisherlib.features import extract as F

SMALL = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXACT = {"precision": "float32", "progress": False}


def random_model(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def test_features_are_the_last_hidden_state_before_each_label(tiny, ids):
    features = fl.extract_features(tiny, None, ids, **EXACT)
    assert features.lengths.tolist() == [max(len(row) - 1, 0) for row in ids]
    for i, row in enumerate(ids):
        if len(row) < 2:
            continue
        with torch.no_grad():
            output = tiny(torch.tensor([row]), output_hidden_states=True)
        torch.testing.assert_close(features[i], output.hidden_states[-1][0, :-1], atol=1e-5, rtol=1e-4)
        log_p = output.logits[0, :-1].log_softmax(-1)
        span = slice(int(features.offsets[i]), int(features.offsets[i + 1]))
        labels = torch.tensor(row[1:])
        assert torch.equal(features.labels[span], labels)
        torch.testing.assert_close(features.nll[span], -log_p.gather(1, labels[:, None])[:, 0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features.trace_weights[span], 1 - log_p.exp().square().sum(1), atol=1e-5, rtol=1e-4)


def test_what_was_encoded_before_is_taken(tiny, ids):
    encoded = fl.encode(ids, None)
    given = fl.extract_features(tiny, None, ids, encoded=encoded, **EXACT)
    assert torch.equal(given.values, fl.extract_features(tiny, None, ids, **EXACT).values)
    with pytest.raises(ValueError, match="encoded= to be of the 8 rows, got 7: encode the same rows"):
        fl.extract_features(tiny, None, ids, encoded=encoded[1:], **EXACT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens_per_batch", [1, 20, 10_000])
def test_batch_and_padding_change_nothing(tiny, ids, side, tokens_per_batch):
    alone = [fl.extract_features(tiny, None, [row], **EXACT) if len(row) > 1 else None for row in ids]
    together = fl.extract_features(tiny, None, ids, tokens_per_batch=tokens_per_batch, padding_side=side, **EXACT)
    for i, single in enumerate(alone):
        expected = torch.empty(0, 16) if single is None else single.values
        torch.testing.assert_close(together[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=97, n_embd=16, n_layer=2, n_head=2, n_positions=64),
        BloomConfig(vocab_size=97, hidden_size=16, n_layer=2, n_head=2),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])  # GPT-2 has learned positions: padding must not shift them
def test_other_architectures(config, side, ids):
    model = random_model(config)
    together = fl.extract_features(model, None, ids, padding_side=side, **EXACT)
    for i in (0, 2, 3):
        with torch.no_grad():
            output = model(torch.tensor([ids[i]]), output_hidden_states=True)
        torch.testing.assert_close(together[i], output.hidden_states[-1][0, :-1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together[i] @ model.lm_head.weight.T, output.logits[0, :-1], atol=1e-4, rtol=1e-3)


def test_only_response_tokens_have_features(real):
    model, tokenizer = real
    rows = Dataset.from_list([{"prompt": "Who is there?", "response": "Nay, answer me."}])
    example = fl.encode(rows, tokenizer)[0]
    features = fl.extract_features(model, tokenizer, rows, precision="float32")
    ids = torch.tensor([example.input_ids])
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[-1][0]
    positions = [t - 1 for t, counts in enumerate(example.is_response) if counts]
    assert tokenizer.decode(features.labels) == "Nay, answer me.<|im_end|>"
    torch.testing.assert_close(features.values, states[positions], atol=1e-3, rtol=1e-3)


def test_bfloat16_stays_close_to_float32(real, plays):
    model, tokenizer = real
    rows = plays.train.select(range(3))
    exact = fl.extract_features(model, tokenizer, rows, precision="float32")
    quick = fl.extract_features(model, tokenizer, rows)
    error = (exact.values - quick.values).norm(dim=1) / exact.values.norm(dim=1)
    assert error.max() < 3e-2
    assert (exact.nll - quick.nll).abs().mean() < 6e-2
    assert abs(exact.nll.mean() - quick.nll.mean()) < 2e-2


def test_a_bias_of_the_head_becomes_a_column_of_ones(ids):
    model = random_model(PhiConfig(**SMALL))
    features = fl.extract_features(model, None, ids, **EXACT)
    assert features.dim == 17
    head = model.get_output_embeddings()
    with torch.no_grad():
        logits = model(torch.tensor([ids[2]])).logits[0, :-1]
    weight = torch.cat([head.weight, head.bias[:, None]], dim=1)
    torch.testing.assert_close(features[2] @ weight.T, logits, atol=1e-4, rtol=1e-4)
    log_p = logits.log_softmax(-1)
    span = slice(int(features.offsets[2]), int(features.offsets[3]))
    torch.testing.assert_close(
        features.nll[span], -log_p.gather(1, torch.tensor(ids[2][1:])[:, None])[:, 0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("config", [CohereConfig(**SMALL, logit_scale=0.25), GraniteConfig(**SMALL, logits_scaling=3.0)])
def test_a_scale_of_the_logits_goes_into_the_features(config, ids):
    model = random_model(config)
    features = fl.extract_features(model, None, ids, **EXACT)
    with torch.no_grad():
        logits = model(torch.tensor([ids[2]])).logits[0, :-1]
    torch.testing.assert_close(features[2] @ model.get_output_embeddings().weight.T, logits, atol=1e-4, rtol=1e-4)
    assert features.info["logit_scale"] != 1


def test_capped_logits_are_refused(ids):
    model = random_model(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=5.0))
    with pytest.raises(ValueError, match="caps them at 5"):
        fl.extract_features(model, None, ids, **EXACT)
    model.config.final_logit_softcapping = None  # a cap that the configuration does not admit is found by the numbers
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _m, _i, output: 5 * torch.tanh(output / 5))
    original = model.forward
    model.forward = lambda *a, **k: _squared(original(*a, **k))
    with pytest.raises(ValueError, match="cannot represent"):
        fl.extract_features(model, None, ids, **EXACT)


def _squared(output):
    output.logits = output.logits.square()
    return output


def test_slicing_the_head_changes_nothing(tiny, ids, monkeypatch):
    whole = fl.extract_features(tiny, None, ids, **EXACT)
    monkeypatch.setattr(F, "_LOGIT_ELEMENTS", 200)  # two tokens at a time
    sliced = fl.extract_features(tiny, None, ids, **EXACT)
    torch.testing.assert_close(sliced.nll, whole.nll)
    torch.testing.assert_close(sliced.trace_weights, whole.trace_weights)


def test_the_model_is_left_as_it_was(tiny, ids):
    before = tiny(torch.tensor([ids[0]])).logits.detach().clone()
    tiny.train()
    fl.extract_features(tiny, None, ids, **EXACT)
    assert tiny.training
    tiny.eval()
    assert torch.equal(tiny(torch.tensor([ids[0]])).logits, before)


def test_from_list_indexing_and_subset():
    blocks = [torch.ones(2, 3), torch.zeros(0, 3), 2 * torch.ones(1, 3)]
    features = fl.TokenFeatures.from_list(blocks)
    assert len(features) == 3 and features.dim == 3 and features.lengths.tolist() == [2, 0, 1]
    assert all(torch.equal(features[i], block) for i, block in enumerate(blocks))
    turned = features.subset([2, 0])
    assert torch.equal(turned[0], blocks[2]) and torch.equal(turned[1], blocks[0])


@pytest.mark.parametrize("name", ["trace_weights", "nll", "labels"])
def test_a_column_that_is_not_known_is_asked_for_by_name(name):
    features = fl.TokenFeatures.from_list([torch.eye(2)])
    with pytest.raises(ValueError, match=f"expected features with {name}, got none: extract them"):
        features.column(name)
    assert fl.TokenFeatures.from_list([torch.eye(2)], nll=torch.ones(2)).column("nll").tolist() == [1, 1]


def test_what_the_dtype_cannot_hold_is_an_error_of_the_first_shard(tiny, ids, tmp_path):
    model = copy.deepcopy(tiny)
    with torch.no_grad():
        model.model.norm.weight.mul_(1e6)
        model.lm_head.weight.mul_(1e-6)
    assert torch.isfinite(fl.extract_features(model, None, ids, **EXACT).values).all()
    for out_dir in (None, tmp_path / "f"):
        with pytest.raises(
            ValueError, match=r"^row 2: expected features within torch.float16 \(up to 65,504\), got .*bfloat16"
        ):
            fl.extract_features(model, None, ids, dtype=torch.float16, out_dir=out_dir, **EXACT)


def test_features_that_are_not_finite_are_an_error_that_names_the_row(tiny, ids, monkeypatch, tmp_path):
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        broken.model.embed_tokens.weight[ids[5][3]] = torch.nan  # one token
    bad = min(i for i, row in enumerate(ids) if ids[5][3] in row[:-1])
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 3)
    for out_dir in (None, tmp_path / "f"):
        with pytest.raises(ValueError, match=f"^row {bad}: expected finite features, got NaN or infinity: the model has"):
            fl.extract_features(broken, None, ids, out_dir=out_dir, tokens_per_batch=1, **EXACT)
    with torch.no_grad():
        broken.lm_head.weight[3] = torch.nan
    with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity: the model has diverged"):
        fl.extract_features(broken, None, ids, **EXACT)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int32, torch.complex64])
def test_a_dtype_that_no_folder_holds_is_refused_in_memory_too(tiny, ids, kind):
    with pytest.raises(ValueError, match=f"one of the dtypes bfloat16, float16, float32, float64, got {kind}"):
        fl.extract_features(tiny, None, ids, dtype=kind)
