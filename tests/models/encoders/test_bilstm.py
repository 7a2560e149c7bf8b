"""`pytest tests/models/encoders/test_bilstm.py`: sentences against a slow run without padding, and word vectors."""

from __future__ import annotations

import pytest
import torch

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.encoders.bilstm import BiLSTM, read_vectors
from dirtune.testing import make_inputs
from tests.models.encoders.cases import TOKENS

SPEC = BiLSTM(vector_size=4, hidden=3)
VOCABULARY = ["", "the", "cat", "sat"]


def _built(spec: BiLSTM = SPEC):
    torch.manual_seed(0)
    return spec.build(TOKENS).eval()


def _sentence_by_hand(encoder, tokens):
    """One sentence at a time, without any padding, pooled with plain loops."""
    words = [token for token in tokens.tolist() if token]
    outputs, _ = encoder.lstm(encoder.vectors(torch.tensor([words])))
    columns = zip(*outputs[0].tolist(), strict=True)
    return torch.tensor([max(column) for column in columns])


def _padded(inputs, more: int):
    return {name: torch.nn.functional.pad(tokens, (0, more)) for name, tokens in inputs.items()}


def test_each_sentence_is_pooled_over_its_own_tokens():
    encoder, inputs = _built(), make_inputs(TOKENS, 5)
    embeddings = encoder(inputs)
    for row in range(5):
        first, second = (_sentence_by_hand(encoder, inputs[name][row]) for name in TOKENS)
        expected = torch.cat([first, second, (first - second).abs(), first * second])
        torch.testing.assert_close(embeddings[row], expected, rtol=1e-5, atol=1e-6)


def test_more_padding_changes_nothing():
    encoder, inputs = _built(), make_inputs(TOKENS, 4)
    assert torch.equal(encoder(_padded(inputs, 6)), encoder(inputs))


def test_padding_gets_no_gradient():
    encoder = _built()
    encoder(make_inputs(TOKENS, 3)).sum().backward()
    assert encoder.vectors.weight.grad[0].abs().max() == 0


def test_a_sentence_without_tokens_is_a_vector_of_zeros():
    encoder, inputs = _built(), make_inputs(TOKENS, 2)
    inputs["first"][1] = 0
    embeddings = encoder(inputs)
    assert embeddings[1, :6].abs().max() == 0
    torch.testing.assert_close(embeddings[1, 12:18], embeddings[1, 6:12].abs())
    embeddings.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
    assert torch.equal(encoder({name: 0 * tokens for name, tokens in inputs.items()}), torch.zeros(2, 24))


def test_word_dropout_removes_whole_words_in_training_only():
    encoder = _built(SPEC.model_copy(update={"dropout": 0.0, "word_dropout": 0.5}))
    vectors = torch.ones(50, 7, 4)
    assert torch.equal(encoder._drop_words(vectors), vectors)
    kept = encoder.train()._drop_words(vectors)
    assert set(kept.sum(dim=-1).unique().tolist()) == {0.0, 4.0}
    assert kept.mean().item() == pytest.approx(0.5, abs=0.1)
    inputs = make_inputs(TOKENS, 4)
    assert not torch.equal(encoder(inputs), encoder(inputs))


def test_dropout_makes_two_views_differ_and_stays_finite():
    encoder = _built(SPEC.model_copy(update={"dropout": 0.5})).train()
    inputs = make_inputs(TOKENS, 4)
    first, second = encoder(inputs), encoder(inputs)
    assert torch.isfinite(first).all()
    assert not torch.equal(first, second)


def test_word_vectors_can_be_kept_as_they_are():
    encoder = _built(SPEC.model_copy(update={"train_vectors": False}))
    encoder(make_inputs(TOKENS, 3)).sum().backward()
    assert encoder.vectors.weight.grad is None


def test_two_vocabularies_are_refused():
    other = InputSpec(kind="tokens", shape=(5,), vocabulary=12)
    with pytest.raises(InputError, match="two token inputs of one vocabulary"):
        SPEC.build({**TOKENS, "second": other})


def _vectors_file(folder, text):
    path = folder / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_word_vector_line_is_split_at_its_first_space(tmp_path):
    path = _vectors_file(tmp_path, "cat 1 2.5\n. . . 1 2\nthe big 3 4\ndog 5 6\nthe -1 1e-2 \n")
    found = read_vectors(path, VOCABULARY, size=2)
    assert {token: vector.tolist() for token, vector in found.items()} == {
        1: pytest.approx([-1.0, 0.01]),
        2: [1.0, 2.5],
    }


def test_known_words_start_from_the_file_and_the_others_at_random(tmp_path):
    path = _vectors_file(tmp_path, "cat 1 2\nsat 3 4\n")
    specs = {name: InputSpec(kind="tokens", shape=(3,), vocabulary=4) for name in TOKENS}
    spec = BiLSTM(vector_size=2, hidden=1, vectors_file=str(path))
    torch.manual_seed(0)
    weight = spec.build(specs, VOCABULARY).vectors.weight
    torch.manual_seed(0)
    random = spec.model_copy(update={"vectors_file": None}).build(specs).vectors.weight
    assert weight[2:].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert weight[0].tolist() == [0.0, 0.0]
    assert torch.equal(weight[1], random[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1\n", "vectors.txt:1: must hold 2 numbers"),
        ("dog 1 2\ncat 1 x\n", "vectors.txt:2: must hold numbers"),
        ("dog 1 2\n", "holds no token of the vocabulary"),
    ],
)
def test_an_unusable_vectors_file_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_vectors(_vectors_file(tmp_path, text), VOCABULARY, size=2)


def test_a_missing_vectors_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_vectors(tmp_path / "none.txt", VOCABULARY, size=2)


@pytest.mark.parametrize("vocabulary", [None, VOCABULARY])
def test_a_vectors_file_needs_the_whole_vocabulary(vocabulary):
    spec = SPEC.model_copy(update={"vectors_file": "vectors.txt"})
    with pytest.raises(InputError, match="needs the data set's vocabulary of 11 tokens"):
        spec.build(TOKENS, vocabulary)


def test_a_rank_without_rows_has_no_embeddings_and_zero_gradients():
    encoder = _built()
    empty = {name: tokens[:0] for name, tokens in make_inputs(TOKENS, 3).items()}
    embeddings = encoder(empty)
    assert embeddings.shape == (0, encoder.embedding_dim)
    embeddings.sum().backward()
    gradients = [parameter.grad for parameter in encoder.lstm.parameters()]
    assert gradients
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
