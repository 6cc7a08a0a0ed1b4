"""Batches hold each token once per epoch, and the loss counts targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.batches import Batch, BatchPlan, evaluation_batches
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

_TURN = '<|state|>guest<|user|>hi<|act|>{"action":"greet"}<|result|>ok<|act|>{"action":"done"}'


def _corpus(lengths: list[int]) -> EncodedCorpus:
    """Return documents of distinct tokens, each terminated by 0."""
    ids = np.arange(1, sum(lengths) + 1, dtype=np.int32)
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    ids[starts[1:] - 1] = 0
    return EncodedCorpus(ids, ids % 3 == 0, starts, 0)


def _batches(plan: BatchPlan) -> list[Batch]:
    return [batch for number in range(len(plan)) for batch in plan.step(number)]


@settings(max_examples=examples(60))
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    packed_share=st.sampled_from([0.0, 0.5, 1.0]),
    context_length=st.sampled_from([8, 20, 64]),
    epochs=st.integers(1, 2),
)
def test_each_token_is_read_once_an_epoch(
    lengths: list[int], packed_share: float, context_length: int, epochs: int
) -> None:
    config = TrainingConfig(
        context_length=context_length,
        batch_tokens=128,
        packed_share=packed_share,
        epochs=epochs,
        context_share=1.0,
    )
    corpus = _corpus(lengths)
    plan = BatchPlan(corpus, config)
    batches = _batches(plan)
    read = np.concatenate([batch.ids[batch.ids > 0] for batch in batches])
    assert sorted(read) == sorted(np.repeat(corpus.ids[corpus.ids > 0], epochs))
    for batch in batches:
        assert batch.ids.size <= max(128, context_length)
        assert batch.ids.shape[1] <= context_length
        assert not batch.loss_mask[:, 0].any()


def test_short_documents_have_rows_of_their_own_unless_packed() -> None:
    corpus = _corpus([10] * 30)
    alone = TrainingConfig(context_length=32, batch_tokens=64, packed_share=0.0)
    plan = BatchPlan(corpus, alone)
    rows = [row for batch in _batches(plan) for row in batch.ids]
    assert len(rows) == 30
    assert {len(row) for row in rows} == {16}
    packed = BatchPlan(corpus, alone.changed(packed_share=1.0))
    rows = [row for batch in _batches(packed) for row in batch.ids]
    assert len(rows) == 10


def test_the_plan_depends_on_the_seed_alone() -> None:
    corpus = _corpus([7, 12, 30] * 20)
    config = TrainingConfig(context_length=16, batch_tokens=64, packed_share=0.5)

    def batches(seed: int) -> list[np.ndarray]:
        plan = BatchPlan(corpus, config.changed(seed=seed))
        return [np.stack([b.ids, b.loss_mask]) for b in _batches(plan)]

    assert all(np.array_equal(a, b) for a, b in zip(batches(1), batches(1), strict=True))
    assert not all(map(np.array_equal, batches(1), batches(2)))


def test_accumulation_groups_the_same_batches_into_fewer_steps() -> None:
    corpus = _corpus([10] * 31)
    alone = TrainingConfig(context_length=32, batch_tokens=64, packed_share=0.0)
    plan = BatchPlan(corpus, alone)
    grouped = BatchPlan(corpus, alone.changed(accumulate_steps=3))
    assert [len(grouped.step(number)) for number in range(len(grouped))] == [3, 3, 2]
    for one, other in zip(_batches(plan), _batches(grouped), strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.loss_mask, other.loss_mask)


@pytest.fixture(scope="module")
def encoded(documents: list[str]) -> tuple[EncodedCorpus, list[str]]:
    vocabulary = train_vocabulary(documents, 600)
    corpus = encode([_TURN, "some ordinary text"], vocabulary)
    return corpus, [vocabulary.id_to_token(i) or "" for i in corpus.ids]


def test_targets_are_the_actions_of_a_turn_and_all_ordinary_text(
    encoded: tuple[EncodedCorpus, list[str]],
) -> None:
    corpus, tokens = encoded
    turn, ordinary = (
        [(tokens[i], corpus.target_mask[i]) for i in range(a, b)]
        for a, b in zip(corpus.starts, corpus.starts[1:], strict=False)
    )
    assert all(is_target for _, is_target in ordinary)
    targets = "".join(token for token, is_target in turn if is_target)
    assert targets == '{"action":"greet"}<|result|>{"action":"done"}<|endoftext|>'


def test_context_share_of_the_context_tokens_counts_in_the_loss(documents: list[str]) -> None:
    corpus = encode(documents[:800], train_vocabulary(documents[:800], 600))
    config = TrainingConfig(packed_share=0.0, context_share=0.25)
    plan = BatchPlan(corpus, config)
    trained = sum(int(batch.loss_mask.sum()) for batch in _batches(plan))
    context = int((~corpus.target_mask).sum()) - len(corpus)
    assert trained - corpus.target_mask.sum() == pytest.approx(0.25 * context, rel=0.1)
    evaluated = sum(int(b.loss_mask.sum()) for b in evaluation_batches(corpus, config))
    assert evaluated == corpus.target_mask.sum()
