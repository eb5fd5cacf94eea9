"""The kernels in Triton. `nmt.model.fast.kernels.Kernels` documents the operations.

Importing this module needs Triton, so only `triton_launch` imports it, when a kernel is launched.

All arithmetic is in float32, whatever the storage type. tanh(k + q) is computed where an energy
needs it: the `[batch, src_len, units]` tensor of a step is never written. No two programs write
the same address, there are no atomics, and every sum has a fixed order: results are
deterministic.

A program holds all source tokens of its sentence, padded to `BLOCK_S`, a power of two. Sizes of
the network are compile-time constants; sizes of the batch and the alignment of a step in memory
are not. A kernel is therefore compiled once per power of two of source lengths, from 8 on.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    # Correct where exp overflows: 1 - 2 / inf = 1.
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit(do_not_specialize=["src_len"], do_not_specialize_on_alignment=["attention"])
def attend(
    query, keys, encoder_states, score, src_mask, attention, context,
    query_stride, src_len, units: tl.constexpr, width: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Energies, softmax and context of one step; one program per sentence."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    real = tl.load(src_mask + row * src_len + source, mask=source < src_len, other=0) != 0
    offsets = row * src_len + source
    # Sum over units once, at the end: a sum across threads costs more than the registers.
    energy_terms = tl.zeros([BLOCK_S, BLOCK_U], tl.float32)
    for begin in range(0, units, BLOCK_U):
        unit = begin + tl.arange(0, BLOCK_U)
        inside = unit < units
        q = tl.load(query + row * query_stride + unit, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(score + unit, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(
            keys + offsets[:, None] * units + unit[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        energy_terms += weight[None, :] * _tanh(key + q[None, :])
    energies = tl.where(real, tl.sum(energy_terms, axis=1), float("-inf"))
    weights = tl.exp(energies - tl.max(energies, axis=0))
    weights = weights / tl.sum(weights, axis=0)
    tl.store(attention + offsets, weights, mask=source < src_len)
    for begin in range(0, width, BLOCK_D):
        column = begin + tl.arange(0, BLOCK_D)
        inside = column < width
        states = tl.load(
            encoder_states + offsets[:, None] * width + column[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        weighted_sum = tl.sum(weights[:, None] * states, axis=0)
        tl.store(
            context + row * width + column, weighted_sum.to(context.dtype.element_ty), mask=inside
        )


@triton.jit(
    do_not_specialize=["d_attention_stride", "src_len"],
    do_not_specialize_on_alignment=["d_attention", "attention", "d_energies"],
)
def attend_backward(
    d_context, d_attention, attention, query, keys, encoder_states, score, src_mask, d_energies,
    d_query, d_attention_stride, query_stride, d_query_stride, src_len,
    units: tl.constexpr, width: tl.constexpr, WITH_ATTENTION: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of energies and query of one step; one program per sentence."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    real = tl.load(src_mask + row * src_len + source, mask=source < src_len, other=0) != 0
    offsets = row * src_len + source
    products = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    for begin in range(0, width, BLOCK_D):
        column = begin + tl.arange(0, BLOCK_D)
        inside = column < width
        gradient = tl.load(d_context + row * width + column, mask=inside, other=0.0)
        states = tl.load(
            encoder_states + offsets[:, None] * width + column[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        products += gradient.to(tl.float32)[None, :] * states
    d_weights = tl.sum(products, axis=1)
    if WITH_ATTENTION:
        d_weights += tl.load(
            d_attention + row * d_attention_stride + source, mask=real, other=0.0
        ).to(tl.float32)
    weights = tl.load(attention + offsets, mask=real, other=0.0)
    d_energy = weights * (d_weights - tl.sum(weights * d_weights, axis=0))
    tl.store(d_energies + offsets, d_energy, mask=source < src_len)
    for begin in range(0, units, BLOCK_U):
        unit = begin + tl.arange(0, BLOCK_U)
        inside = unit < units
        q = tl.load(query + row * query_stride + unit, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(score + unit, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(
            keys + offsets[:, None] * units + unit[None, :],
            mask=real[:, None] & inside[None, :], other=0.0,
        ).to(tl.float32)  # fmt: skip
        tanh_sum = _tanh(key + q[None, :])
        total = weight * tl.sum(d_energy[:, None] * (1.0 - tanh_sum * tanh_sum), axis=0)
        tl.store(
            d_query + row * d_query_stride + unit,
            total.to(d_query.dtype.element_ty), mask=inside,
        )  # fmt: skip


@triton.jit(do_not_specialize=["steps", "batch", "src_len"])
def key_grads(
    queries, d_energies, keys, score, src_mask, d_keys, d_scores,
    step_stride, query_stride, steps, batch, src_len, units: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys and the score, summed over all steps.

    One program per sentence and block of units holds its part of both sums. Adding in memory
    would read and write `src_len * units` float32 values per sentence and step.
    """
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    unit = tl.program_id(1) * BLOCK_U + tl.arange(0, BLOCK_U)
    inside = unit < units
    real = tl.load(src_mask + row * src_len + source, mask=source < src_len, other=0) != 0
    offsets = row * src_len + source
    weight = tl.load(score + unit, mask=inside, other=0.0).to(tl.float32)
    key = tl.load(
        keys + offsets[:, None] * units + unit[None, :],
        mask=real[:, None] & inside[None, :], other=0.0,
    ).to(tl.float32)  # fmt: skip
    keys_sum = tl.zeros([BLOCK_S, BLOCK_U], tl.float32)
    score_sum = tl.zeros([BLOCK_S, BLOCK_U], tl.float32)
    query_at = queries + row * query_stride + unit
    energy_at = d_energies + offsets
    for _step in range(0, steps):
        q = tl.load(query_at, mask=inside, other=0.0).to(tl.float32)
        d_energy = tl.load(energy_at, mask=real, other=0.0)
        tanh_sum = _tanh(key + q[None, :])
        scaled = d_energy[:, None] * tanh_sum
        score_sum += scaled
        keys_sum += d_energy[:, None] - scaled * tanh_sum
        query_at += step_stride
        energy_at += batch * src_len
    tl.store(
        d_keys + offsets[:, None] * units + unit[None, :],
        (keys_sum * weight[None, :]).to(d_keys.dtype.element_ty),
        mask=(source < src_len)[:, None] & inside[None, :],
    )
    tl.store(d_scores + row * units + unit, tl.sum(score_sum, axis=0), mask=inside)


@triton.jit(do_not_specialize=["steps", "batch", "src_len"])
def encoder_grads(
    attention, d_contexts, d_encoder_states, steps, batch, src_len, width: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of the encoder states through all contexts; one program per sentence and block."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.arange(0, BLOCK_S)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = column < width
    offsets = row * src_len + source
    total = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    weights_at = attention + offsets
    gradient_at = d_contexts + row * width + column
    for _step in range(0, steps):
        weights = tl.load(weights_at, mask=source < src_len, other=0.0)
        gradient = tl.load(gradient_at, mask=inside, other=0.0).to(tl.float32)
        total += weights[:, None] * gradient[None, :]
        weights_at += batch * src_len
        gradient_at += batch * width
    tl.store(
        d_encoder_states + offsets[:, None] * width + column[None, :],
        total.to(d_encoder_states.dtype.element_ty),
        mask=(source < src_len)[:, None] & inside[None, :],
    )


@triton.jit
def gates(
    input_gates, context_gates, recurrent, exact_state, candidate, state,
    input_gates_stride, recurrent_stride, hidden: tl.constexpr,
    WITH_CONTEXT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gates and new state of a GRU; one program per sentence and block of units."""
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < hidden
    input_gates += row * input_gates_stride + unit
    recurrent += row * recurrent_stride + unit
    x_reset = tl.load(input_gates, mask=inside, other=0.0).to(tl.float32)
    x_update = tl.load(input_gates + hidden, mask=inside, other=0.0).to(tl.float32)
    x_candidate = tl.load(input_gates + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    if WITH_CONTEXT:
        context_gates += row * 3 * hidden + unit
        x_reset += tl.load(context_gates, mask=inside, other=0.0).to(tl.float32)
        x_update += tl.load(context_gates + hidden, mask=inside, other=0.0).to(tl.float32)
        x_candidate += tl.load(context_gates + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    h_reset = tl.load(recurrent, mask=inside, other=0.0).to(tl.float32)
    h_update = tl.load(recurrent + hidden, mask=inside, other=0.0).to(tl.float32)
    h_candidate = tl.load(recurrent + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(exact_state + row * hidden + unit, mask=inside, other=0.0)
    reset = _sigmoid(x_reset + h_reset)
    update = _sigmoid(x_update + h_update)
    new = _tanh(x_candidate + reset * h_candidate)
    after = new + update * (before - new)
    storage = recurrent.dtype.element_ty
    tl.store(recurrent, reset.to(storage), mask=inside)
    tl.store(recurrent + hidden, update.to(storage), mask=inside)
    tl.store(candidate + row * hidden + unit, new.to(storage), mask=inside)
    tl.store(exact_state + row * hidden + unit, after, mask=inside)
    tl.store(state + row * hidden + unit, after.to(storage), mask=inside)


@triton.jit
def gates_backward(
    d_state, d_carried, d_product, recurrent, candidate, before, d_input_gates, d_recurrent,
    d_state_stride, recurrent_stride, d_recurrent_stride, hidden: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the pre-activations of a GRU; one program per sentence and block of units."""
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < hidden
    d_carried += row * hidden + unit
    recurrent += row * recurrent_stride + unit
    d_input_gates += row * 3 * hidden + unit
    d_recurrent += row * d_recurrent_stride + unit
    gradient = tl.load(d_state + row * d_state_stride + unit, mask=inside, other=0.0)
    gradient = gradient.to(tl.float32) + tl.load(d_carried, mask=inside, other=0.0)
    gradient += tl.load(d_product + row * hidden + unit, mask=inside, other=0.0).to(tl.float32)
    reset = tl.load(recurrent, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(recurrent + hidden, mask=inside, other=0.0).to(tl.float32)
    h_candidate = tl.load(recurrent + 2 * hidden, mask=inside, other=0.0).to(tl.float32)
    new = tl.load(candidate + row * hidden + unit, mask=inside, other=0.0).to(tl.float32)
    old = tl.load(before + row * hidden + unit, mask=inside, other=0.0).to(tl.float32)
    d_candidate = gradient * (1.0 - update) * (1.0 - new * new)
    d_reset = d_candidate * h_candidate * reset * (1.0 - reset)
    d_update = gradient * (old - new) * update * (1.0 - update)
    storage = d_input_gates.dtype.element_ty
    tl.store(d_carried, gradient * update, mask=inside)
    tl.store(d_input_gates, d_reset.to(storage), mask=inside)
    tl.store(d_input_gates + hidden, d_update.to(storage), mask=inside)
    tl.store(d_input_gates + 2 * hidden, d_candidate.to(storage), mask=inside)
    tl.store(d_recurrent, d_reset.to(storage), mask=inside)
    tl.store(d_recurrent + hidden, d_update.to(storage), mask=inside)
    tl.store(d_recurrent + 2 * hidden, (d_candidate * reset).to(storage), mask=inside)


@triton.jit(do_not_specialize_on_alignment=["reference"])
def cross_entropy(
    logits, bias, reference, losses, uniform_losses, label_smoothing,
    vocab: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Loss of a token; replaces its scores by their gradient. One program per token.

    The scores are read twice and written once. The first pass computes maximum and sum of
    exponentials per column of the block (online softmax) and combines the columns at its end.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocab
    target = tl.load(reference + row)
    real = tl.where(target == PAD, 0.0, 1.0)
    maximum = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    score_total = tl.zeros([BLOCK], tl.float32)
    target_score = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, vocab, BLOCK):
        piece = begin + tl.arange(0, BLOCK)
        inside = piece < vocab
        score = tl.load(logits + piece, mask=inside, other=0.0).to(tl.float32)
        score += tl.load(bias + piece, mask=inside, other=0.0)
        new_maximum = tl.maximum(maximum, score)
        new_total = total * tl.exp(maximum - new_maximum) + tl.exp(score - new_maximum)
        total = tl.where(inside, new_total, total)
        maximum = tl.where(inside, new_maximum, maximum)
        score_total += tl.where(inside, score, 0.0)
        target_score += tl.where(piece == target, score, 0.0)
    row_maximum = tl.max(maximum, axis=0)
    log_total = row_maximum + tl.log(tl.sum(total * tl.exp(maximum - row_maximum), axis=0))
    tl.store(losses + row, real * (log_total - tl.sum(target_score, axis=0)))
    tl.store(uniform_losses + row, real * (log_total - tl.sum(score_total, axis=0) / vocab))
    for begin in range(0, vocab, BLOCK):
        piece = begin + tl.arange(0, BLOCK)
        inside = piece < vocab
        score = tl.load(logits + piece, mask=inside, other=0.0).to(tl.float32)
        score += tl.load(bias + piece, mask=inside, other=0.0)
        gradient = tl.exp(score - log_total) - label_smoothing / vocab
        gradient -= tl.where(piece == target, 1.0 - label_smoothing, 0.0)
        tl.store(logits + piece, (real * gradient).to(logits.dtype.element_ty), mask=inside)
