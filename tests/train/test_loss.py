"""The loss by chunks of the vocabulary and by chunks of the targets against the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.model import loss


def example(vocab=120):
    """Hidden states of 31 targets, a head of `vocab` rows, labels."""
    key = jax.random.split(jax.random.key(0), 3)
    hidden, head = jax.random.normal(key[0], (31, 16)), jax.random.normal(key[1], (vocab, 16))
    return hidden, head, jax.random.randint(key[2], (31,), 0, vocab).at[0].set(vocab - 1).at[1].set(0)


@pytest.mark.parametrize(("chunk", "vocab"), [(7, 120), (60, 120), (120, 120), (60, 127), (40, 113), (126, 127)])
def test_chunks_equal_plain_cross_entropy(monkeypatch, chunk, vocab):
    """Those of 120 rows are equal; of a prime number the last one begins within the one before."""
    monkeypatch.setattr(loss, "VOCAB_CHUNK", chunk)
    hidden, head, labels = example(vocab)

    def plain(hidden, head):
        logits = hidden @ head.T
        return jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(31), labels]

    def chunked(hidden, head):
        return loss.target_nll(hidden, head, labels)

    np.testing.assert_allclose(chunked(hidden, head), plain(hidden, head), rtol=1e-5, atol=1e-5)
    weights = jnp.linspace(0, 1, 31)
    ours, theirs = (
        jax.grad(lambda h, w, f=f: jnp.sum(f(h, w) * weights), argnums=(0, 1))(hidden, head) for f in (chunked, plain)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", [1, 8, 31, 40])
def test_chunks_of_targets_are_the_same_sum(monkeypatch, targets):
    monkeypatch.setattr(loss, "LOGITS", 1)
    monkeypatch.setattr(loss, "TARGETS", targets)
    hidden, head, labels = example()
    weight = jnp.linspace(0, 1, 31)

    def by_vocabulary(hidden, head):
        return 3 * jnp.sum(loss.target_nll(hidden, head, labels) * weight)

    def by_targets(hidden, head):
        return 3 * loss.nll_sum(hidden, head, labels, weight)

    (one, ones), (other, others) = (
        jax.value_and_grad(f, argnums=(0, 1))(hidden, head) for f in (by_targets, by_vocabulary)
    )
    np.testing.assert_allclose([one, by_targets(hidden, head)], other, rtol=1e-6)
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_picked_states_give_their_gradient_back():
    hidden = jax.random.normal(jax.random.key(0), (2, 6, 3))
    idx, weight = jnp.array([[3, 0, 5, 0], [1, 2, 4, 4]]), jnp.array([[1.0, 0.5, 2, 0], [1, 1, 0, 1]])

    def total(pick, hidden):
        return jnp.sum(jnp.sin(pick(hidden)) * weight[..., None])

    ours = jax.grad(lambda h: total(lambda h: loss.pick(h, idx, weight > 0), h))(hidden)
    theirs = jax.grad(lambda h: total(lambda h: jnp.take_along_axis(h, idx[..., None], axis=1), h))(hidden)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("vocab", [152064, 151936, 32000, 1024, 151665])
def test_chunks_divide_a_usual_vocabulary(vocab):
    assert vocab % loss.chunk_rows(vocab) == 0
    assert loss.chunk_rows(vocab) <= loss.VOCAB_CHUNK


@pytest.mark.parametrize("vocab", [32002, 32003, 100_003, 128_259, 151_667, 1_000_003])
def test_chunks_of_any_vocabulary_are_small_and_few(vocab):
    rows = loss.chunk_rows(vocab)
    assert rows <= loss.VOCAB_CHUNK and rows % loss.TILE == 0
    assert -(-vocab // rows) == -(-vocab // loss.VOCAB_CHUNK)


def test_an_awkward_vocabulary_takes_no_more_memory():
    """15,107 is a prime: its logits existed all at once."""

    def temporaries(vocab: int) -> int:
        def total(hidden, head, labels):
            return jnp.sum(loss.target_nll(hidden, head, labels))

        shapes = [((512, 32), jnp.float32), ((vocab, 32), jnp.float32), ((512,), jnp.int32)]
        arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
        memory = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*arguments).compile().memory_analysis()
        assert memory
        return memory.temp_size_in_bytes

    assert temporaries(15_107) < 1.1 * temporaries(15_104)


@pytest.mark.parametrize("chunk", [40, 120])
def test_logits_within_a_cap(monkeypatch, chunk):
    """Loss and gradients of both ways, next to the formula."""
    monkeypatch.setattr(loss, "VOCAB_CHUNK", chunk)
    hidden, head, labels = example()
    weight, cap = jnp.linspace(0, 1, 31), 2.0

    def plain(hidden, head):
        logits = cap * jnp.tanh(hidden @ head.T / cap)
        return jnp.sum((jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(31), labels]) * weight)

    def by_vocabulary(hidden, head):
        return jnp.sum(loss.target_nll(hidden, head, labels, cap) * weight)

    def by_targets(hidden, head):
        return loss.nll_sum(hidden, head, labels, weight, cap)

    wanted, gradients = jax.value_and_grad(plain, argnums=(0, 1))(hidden, head)
    for form in (by_vocabulary, by_targets):
        found, own = jax.value_and_grad(form, argnums=(0, 1))(hidden, head)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        for a, b in zip(own, gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
