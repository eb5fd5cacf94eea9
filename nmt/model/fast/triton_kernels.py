"""The recurrence's kernels in Triton. `nmt.model.fast.kernels` says what each one computes.

This module needs Triton to be imported, so only `kernels.OnTriton` imports it.

Everything is computed in float32, whatever its tensors are stored in. Where an energy
needs tanh(k + q), it is made on the spot: the `[batch, src_len, units]` tensor of a step
is never written. No two programs write the same place, so there are no atomics, and a sum
has one order: the same input gives the same bits.

A program sees all source tokens of its sentence at once, `BLOCK_S` of them, a power of two.
What belongs to the network is known when a kernel is compiled, what belongs to a batch is not,
nor where a step begins in memory: a kernel is compiled once for each power of two of source
lengths, from 8 on.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    # Two fast instructions (exponential, division); right to 1 and -1 where exp overflows.
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit(do_not_specialize=["src_len"], do_not_specialize_on_alignment=["attention"])
def look(
    query, keys, encoder_states, score, src_mask, attention, context,
    query_stride, src_len, units: tl.constexpr, width: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Energies, softmax and context of one sentence and step; a program a sentence."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    real = tl.load(src_mask + row * src_len + source, mask=source < src_len, other=0) != 0
    places = row * src_len + source
    # Summed over units only once, at the end: a sum across threads costs more than memory.
    scored = tl.zeros([BLOCK_S, BLOCK_U], tl.float32)
    for begin in range(0, units, BLOCK_U):
        unit = begin + tl.arange(0, BLOCK_U)
        inside = unit < units
        asked = tl.load(query + row * query_stride + unit, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(score + unit, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(
            keys + places[:, None] * units + unit[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        scored += weight[None, :] * _tanh(key + asked[None, :])
    energies = tl.where(real, tl.sum(scored, axis=1), float("-inf"))
    weights = tl.exp(energies - tl.max(energies, axis=0))
    weights = weights / tl.sum(weights, axis=0)
    tl.store(attention + places, weights, mask=source < src_len)
    for begin in range(0, width, BLOCK_D):
        column = begin + tl.arange(0, BLOCK_D)
        inside = column < width
        states = tl.load(
            encoder_states + places[:, None] * width + column[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        mean = tl.sum(weights[:, None] * states, axis=0)
        tl.store(context + row * width + column, mean.to(context.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=["d_attention_stride", "src_len"],
    do_not_specialize_on_alignment=["d_attention", "attention", "d_energies"],
)
def look_backward(
    d_context, d_attention, attention, query, keys, encoder_states, score, src_mask, d_energies,
    d_query, d_attention_stride, query_stride, d_query_stride, src_len,
    units: tl.constexpr, width: tl.constexpr, WITH_ATTENTION: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of the energies and of the query of one sentence and step."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    real = tl.load(src_mask + row * src_len + source, mask=source < src_len, other=0) != 0
    places = row * src_len + source
    products = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    for begin in range(0, width, BLOCK_D):
        column = begin + tl.arange(0, BLOCK_D)
        inside = column < width
        gradient = tl.load(d_context + row * width + column, mask=inside, other=0.0)
        states = tl.load(
            encoder_states + places[:, None] * width + column[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        products += gradient.to(tl.float32)[None, :] * states
    d_weights = tl.sum(products, axis=1)
    if WITH_ATTENTION:
        d_weights += tl.load(
            d_attention + row * d_attention_stride + source, mask=real, other=0.0
        ).to(tl.float32)
    weights = tl.load(attention + places, mask=real, other=0.0)
    d_energy = weights * (d_weights - tl.sum(weights * d_weights, axis=0))
    tl.store(d_energies + places, d_energy, mask=source < src_len)
    for begin in range(0, units, BLOCK_U):
        unit = begin + tl.arange(0, BLOCK_U)
        inside = unit < units
        asked = tl.load(query + row * query_stride + unit, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(score + unit, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(
            keys + places[:, None] * units + unit[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        mixed = _tanh(key + asked[None, :])
        total = weight * tl.sum(d_energy[:, None] * (1.0 - mixed * mixed), axis=0)
        tl.store(
            d_query + row * d_query_stride + unit,
            total.to(d_query.dtype.element_ty), mask=inside,
        )  # fmt: skip


@triton.jit(do_not_specialize=["steps", "batch", "src_len"])
def look_finish(
    queries, d_energies, keys, score, src_mask, d_keys, d_scores,
    step_stride, query_stride, steps, batch, src_len, units: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    """Gradients of a sentence's keys, and its share of the score's, over all steps.

    A program a sentence and block of units holds its piece of both while it goes through
    the steps; adding to them in memory at each step would move `src_len * units` float32
    numbers a sentence and step to and fro.
    """
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    unit = tl.program_id(1) * BLOCK_U + tl.arange(0, BLOCK_U)
    inside = unit < units
    real = tl.load(src_mask + row * src_len + source, mask=source < src_len, other=0) != 0
    places = row * src_len + source
    weight = tl.load(score + unit, mask=inside, other=0.0).to(tl.float32)
    key = tl.load(
        keys + places[:, None] * units + unit[None, :],
        mask=real[:, None] & inside[None, :], other=0.0,
    ).to(tl.float32)  # fmt: skip
    keys_sum = tl.zeros([BLOCK_S, BLOCK_U], tl.float32)
    score_sum = tl.zeros([BLOCK_S, BLOCK_U], tl.float32)
    asked_at = queries + row * query_stride + unit
    energy_at = d_energies + places
    for _step in range(0, steps):
        asked = tl.load(asked_at, mask=inside, other=0.0).to(tl.float32)
        d_energy = tl.load(energy_at, mask=real, other=0.0)
        mixed = _tanh(key + asked[None, :])
        scaled = d_energy[:, None] * mixed
        score_sum += scaled
        keys_sum += d_energy[:, None] - scaled * mixed
        asked_at += step_stride
        energy_at += batch * src_len
    tl.store(
        d_keys + places[:, None] * units + unit[None, :],
        (keys_sum * weight[None, :]).to(d_keys.dtype.element_ty),
        mask=(source < src_len)[:, None] & inside[None, :],
    )
    tl.store(d_scores + row * units + unit, tl.sum(score_sum, axis=0), mask=inside)


@triton.jit(do_not_specialize=["steps", "batch", "src_len"])
def spread(
    attention, d_contexts, d_encoder_states, steps, batch, src_len, width: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of a sentence's encoder states as what contexts were made of, over all steps."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = column < width
    places = row * src_len + source
    total = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    weights_at = attention + places
    gradient_at = d_contexts + row * width + column
    for _step in range(0, steps):
        weights = tl.load(weights_at, mask=source < src_len, other=0.0)
        gradient = tl.load(gradient_at, mask=inside, other=0.0).to(tl.float32)
        total += weights[:, None] * gradient[None, :]
        weights_at += batch * src_len
        gradient_at += batch * width
    tl.store(
        d_encoder_states + places[:, None] * width + column[None, :],
        total.to(d_encoder_states.dtype.element_ty),
        mask=(source < src_len)[:, None] & inside[None, :],
    )


@triton.jit
def gates(
    given, from_context, recurrent, exact, candidate, state,
    given_stride, recurrent_stride, hidden: tl.constexpr,
    WITH_CONTEXT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A GRU's gates and new state; a program a sentence and block of units."""
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < hidden
    given += row * given_stride + unit
    recurrent += row * recurrent_stride + unit
    now_reset = tl.load(given, mask=inside, other=0.0).to(tl.float32)
    now_update = tl.load(given + hidden, mask=inside, other=0.0).to(tl.float32)
    now_candidate = tl.load(given + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    if WITH_CONTEXT:
        from_context += row * 3 * hidden + unit
        now_reset += tl.load(from_context, mask=inside, other=0.0).to(tl.float32)
        now_update += tl.load(from_context + hidden, mask=inside, other=0.0).to(tl.float32)
        now_candidate += tl.load(from_context + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    own_reset = tl.load(recurrent, mask=inside, other=0.0).to(tl.float32)
    own_update = tl.load(recurrent + hidden, mask=inside, other=0.0).to(tl.float32)
    own = tl.load(recurrent + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(exact + row * hidden + unit, mask=inside, other=0.0)
    reset = _sigmoid(now_reset + own_reset)
    update = _sigmoid(now_update + own_update)
    new = _tanh(now_candidate + reset * own)
    after = new + update * (before - new)
    kept = recurrent.dtype.element_ty
    tl.store(recurrent, reset.to(kept), mask=inside)
    tl.store(recurrent + hidden, update.to(kept), mask=inside)
    tl.store(candidate + row * hidden + unit, new.to(kept), mask=inside)
    tl.store(exact + row * hidden + unit, after, mask=inside)
    tl.store(state + row * hidden + unit, after.to(kept), mask=inside)


@triton.jit
def gates_backward(
    d_state, carried, product, recurrent, candidate, before, d_given, d_recurrent,
    d_state_stride, recurrent_stride, d_recurrent_stride, hidden: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of what a GRU's gates were given; a program a sentence and block of units."""
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < hidden
    carried += row * hidden + unit
    recurrent += row * recurrent_stride + unit
    d_given += row * 3 * hidden + unit
    d_recurrent += row * d_recurrent_stride + unit
    gradient = tl.load(d_state + row * d_state_stride + unit, mask=inside, other=0.0)
    gradient = gradient.to(tl.float32) + tl.load(carried, mask=inside, other=0.0)
    gradient += tl.load(product + row * hidden + unit, mask=inside, other=0.0).to(tl.float32)
    reset = tl.load(recurrent, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(recurrent + hidden, mask=inside, other=0.0).to(tl.float32)
    own = tl.load(recurrent + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    new = tl.load(candidate + row * hidden + unit, mask=inside, other=0.0).to(tl.float32)
    old = tl.load(before + row * hidden + unit, mask=inside, other=0.0).to(tl.float32)
    d_candidate = gradient * (1.0 - update) * (1.0 - new * new)
    d_reset = d_candidate * own * reset * (1.0 - reset)
    d_update = gradient * (old - new) * update * (1.0 - update)
    kept = d_given.dtype.element_ty
    tl.store(carried, gradient * update, mask=inside)
    tl.store(d_given, d_reset.to(kept), mask=inside)
    tl.store(d_given + hidden, d_update.to(kept), mask=inside)
    tl.store(d_given + 2 * hidden, d_candidate.to(kept), mask=inside)
    tl.store(d_recurrent, d_reset.to(kept), mask=inside)
    tl.store(d_recurrent + hidden, d_update.to(kept), mask=inside)
    tl.store(d_recurrent + 2 * hidden, (d_candidate * reset).to(kept), mask=inside)


@triton.jit(do_not_specialize_on_alignment=["reference"])
def cross_entropy(
    logits, bias, reference, losses, evens, label_smoothing,
    vocab: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A token's loss, and its gradient in place of its scores; a program a token.

    The scores are read twice and written once, in the type they are stored in: the first
    time for the largest and the sum, each thread for its own columns, put together at the end.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocab
    wanted = tl.load(reference + row)
    counts = tl.where(wanted == PAD, 0.0, 1.0)
    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    summed = tl.zeros([BLOCK], tl.float32)
    found = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, vocab, BLOCK):
        piece = begin + tl.arange(0, BLOCK)
        inside = piece < vocab
        score = tl.load(logits + piece, mask=inside, other=0.0).to(tl.float32)
        score += tl.load(bias + piece, mask=inside, other=0.0)
        larger = tl.maximum(largest, score)
        grown = total * tl.exp(largest - larger) + tl.exp(score - larger)
        total = tl.where(inside, grown, total)
        largest = tl.where(inside, larger, largest)
        summed += tl.where(inside, score, 0.0)
        found += tl.where(piece == wanted, score, 0.0)
    top = tl.max(largest, axis=0)
    log_total = top + tl.log(tl.sum(total * tl.exp(largest - top), axis=0))
    tl.store(losses + row, counts * (log_total - tl.sum(found, axis=0)))
    tl.store(evens + row, counts * (log_total - tl.sum(summed, axis=0) / vocab))
    for begin in range(0, vocab, BLOCK):
        piece = begin + tl.arange(0, BLOCK)
        inside = piece < vocab
        score = tl.load(logits + piece, mask=inside, other=0.0).to(tl.float32)
        score += tl.load(bias + piece, mask=inside, other=0.0)
        gradient = tl.exp(score - log_total) - label_smoothing / vocab
        gradient -= tl.where(piece == wanted, 1.0 - label_smoothing, 0.0)
        tl.store(logits + piece, (counts * gradient).to(logits.dtype.element_ty), mask=inside)
