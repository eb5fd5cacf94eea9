"""Beam search, vectorised over sentences and hypotheses.

Rules:

- A hypothesis ends with EOS. At the maximum length EOS is the only continuation. The
  log-probability of a hypothesis is therefore that of its ids and EOS under teacher forcing.
- A finished hypothesis keeps its slot in the beam; the search continues with one slot fewer. A
  beam of 1 is greedy search, and a beam as wide as the tree is exhaustive search.
- An open hypothesis is dropped when it cannot score better than the `n_best` finished ones. The
  bound is its log-probability, which only falls, divided by the largest length penalty it can
  reach, with the best possible coverage. Hypotheses ranked below it cannot win either, so the
  pruning changes no result. A sentence is done when no open hypothesis is left.

Tensors have two layouts: `[sentences, beam]`, one slot per hypothesis, for ranking; and
`[rows, ...]`, one row per *open* hypothesis, for the network, so that finished hypotheses cost
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.model import Seq2Seq
from nmt.model.fast.inference import Inference
from nmt.symbols import BOS, EOS, PAD, UNK
from nmt.translate.constraints import SpanConstraints

_EXTRA_LENGTH = 10  # tokens allowed beyond max_ratio, for very short sources
_SHRINK_FRACTION = 0.25  # of the batch that must be done before it is made smaller
_MIN_COVERAGE = 1e-6  # keeps the log of the coverage finite


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation in ids.

    Attributes:
        ids: without BOS and EOS.
        log_prob: natural log-probability, EOS included.
        score: log_prob / length_penalty + coverage_penalty; ranks the hypotheses of a sentence.
        attention: a_ij for each id and for EOS, `[length + 1, src_len]`.
    """

    ids: list[int]
    log_prob: float
    score: float
    attention: Tensor


def length_penalty(length: float, alpha: float) -> float:
    """Return ((5 + length) / 6) ** alpha (Wu et al. 2016, eq. 14); length without BOS and EOS."""
    return float(((5 + length) / 6) ** alpha)


def coverage_penalty(coverage: Tensor, src_mask: Tensor, beta: float) -> Tensor:
    """Return beta * sum_j log(min(sum_i a_ij, 1)), at most 0 (Wu et al. 2016, eq. 14).

    Args:
        coverage: attention summed over the target tokens, EOS included, `[..., src_len]`.
        src_mask: True on real tokens, the same shape.
        beta: weight.
    """
    logs = coverage.clamp(_MIN_COVERAGE, 1.0).log().masked_fill(~src_mask, 0.0)
    return beta * logs.sum(dim=-1)


def max_length(src_len: int, max_ratio: float) -> int:
    """Return the maximum length of a translation, without EOS, for `src_len` source tokens."""
    return int(src_len * max_ratio) + _EXTRA_LENGTH


@torch.inference_mode()
def beam_search(
    model: Seq2Seq | Inference | Sequence[Inference],
    src: Tensor,
    src_mask: Tensor,
    *,
    beam: int,
    alpha: float,
    max_lengths: Tensor,
    n_best: int = 1,
    beta: float = 0.0,
    no_repeat: int = 0,
    constraints: SpanConstraints | None = None,
) -> list[list[Hypothesis]]:
    """Search for the best translations of a batch.

    Args:
        model: in evaluation mode, prepared for inference or not; or the members of an ensemble
            with the same vocabularies, whose next-token probabilities are averaged.
        src: ids, `[batch, src_len]`; no sentence empty.
        src_mask: True on real tokens, `[batch, src_len]`.
        beam: hypotheses per sentence.
        alpha: exponent of the length penalty; 0 ranks by log-probability.
        max_lengths: maximum tokens of each translation, EOS not counted, `[batch]`.
        n_best: hypotheses to return per sentence, at most `beam`.
        beta: weight of the coverage penalty, which ranks finished hypotheses only.
        no_repeat: size of the n-grams that may not occur twice in a hypothesis; 0 for no limit.
        constraints: on the symbols of protected spans.

    Returns:
        The hypotheses of each sentence, best score first; fewer than `n_best` only if there are
        no more.
    """
    # Over 60 lines: one algorithm, read from top to bottom.
    if isinstance(model, Seq2Seq):
        model = Inference(model)
    members = [model] if isinstance(model, Inference) else list(model)
    device, batch = src.device, src.shape[0]
    started = [member.begin(src, src_mask) for member in members]
    sources = [source for source, _, _ in started]
    states = [state for _, state, _ in started]
    products = [product for _, _, product in started]
    history = _History(batch, n_best, src.shape[1], device)

    # Of the sentences in the batch, `[sentences]`:
    limits = max_lengths.to(device)
    max_penalty = ((5.0 + limits) / 6.0) ** alpha
    free = torch.full_like(limits, beam)  # slots not taken by finished hypotheses
    # Of the open hypotheses, `[rows]`; one per sentence at the start:
    sentence = torch.arange(batch, device=device)
    slot = sentence  # sentence * width + slot in its beam
    tokens = torch.full((batch,), BOS, device=device)
    log_prob = torch.zeros(batch, device=device)
    coverage = torch.zeros(batch, src.shape[1], device=device)
    prefixes = torch.empty(batch, 0, dtype=torch.long, device=device)
    written = torch.zeros_like(tokens)  # span symbols of each hypothesis, as bit masks
    width = 1  # slots per sentence in this step

    for length in range(int(max_lengths.max()) + 1):
        # Compute one step of the network.
        outputs = [
            member.step(tokens, state, product, source, slot, width)
            for member, state, product, source in zip(
                members, states, products, sources, strict=True
            )
        ]
        states = [state for state, _, _, _ in outputs]
        products = [product for _, product, _, _ in outputs]
        attention = _mean([a for _, _, _, a in outputs])  # [sentences, width, src_len]
        next_log_probs = _next_log_probs([logits for _, _, logits, _ in outputs])  # [rows, vocab]
        if beta > 0:
            coverage = coverage + attention.flatten(0, 1)[slot]

        # Select the best continuations of each sentence.
        _mask_tokens(next_log_probs, sentence, limits <= length, eos_allowed=length > 0)
        if no_repeat and length >= no_repeat:
            _mask_repeats(next_log_probs, prefixes, no_repeat)
        if constraints is not None:
            constraints.apply(next_log_probs, written, sentence, length)
        top_log_probs, top_tokens = next_log_probs.topk(min(beam, next_log_probs.shape[1]), dim=1)
        per_row = top_tokens.shape[1]
        candidates = top_log_probs.new_full((len(limits) * width, per_row), -torch.inf)
        candidates[slot] = top_log_probs + log_prob.unsqueeze(1)
        candidates = candidates.view(len(limits), width * per_row)
        values, flat = candidates.topk(min(beam, width * per_row), dim=1)
        parents = torch.div(flat, per_row, rounding_mode="floor")  # [sentences, beam]
        row_of_slot = torch.zeros(len(limits) * width, dtype=torch.long, device=device)
        row_of_slot[slot] = torch.arange(len(slot), device=device)
        parent_rows = row_of_slot.view(len(limits), width).gather(1, parents)
        chosen = top_tokens[parent_rows, flat % per_row]

        # Finish the hypotheses that end with EOS; they keep their slots.
        ranks = torch.arange(values.shape[1], device=device)
        valid = (values > -torch.inf) & (ranks < free.unsqueeze(1))
        finished = valid & (chosen == EOS)
        free = free - finished.sum(dim=1)
        scores = values / length_penalty(length, alpha)
        if beta > 0:
            mask = sources[0].mask.unsqueeze(1).expand(-1, values.shape[1], -1)
            scores = scores + coverage_penalty(coverage[parent_rows], mask, beta)
        scores = scores.masked_fill(~finished, -torch.inf)
        history.record(parents, chosen, values, scores, attention)

        # Keep the open hypotheses that can still win as the rows of the next step.
        can_win = values / max_penalty.unsqueeze(1) > history.worst.unsqueeze(1)
        is_open = valid & ~finished & can_win
        sentence_open = is_open.any(dim=1)
        width = values.shape[1]
        slot = torch.nonzero(is_open.view(-1)).squeeze(1)
        if len(slot) == 0:
            break
        sentence = torch.div(slot, width, rounding_mode="floor")
        rows = parent_rows.view(-1)[slot]
        tokens, log_prob = chosen.view(-1)[slot], values.view(-1)[slot]
        states = [state.index_select(0, rows) for state in states]
        products = [product.index_select(0, rows) for product in products]
        if constraints is not None:
            written = constraints.after(written[rows], tokens)
        if beta > 0:
            coverage = coverage[rows]
        if no_repeat:
            prefixes = torch.cat([prefixes[rows], tokens.unsqueeze(1)], dim=1)

        # Remove finished sentences from the batch.
        if float(sentence_open.sum()) <= (1 - _SHRINK_FRACTION) * len(sentence_open):
            keep = torch.nonzero(sentence_open).squeeze(1)
            src_len = int(sources[0].mask[keep].sum(dim=1).max())
            sources = [source.select(keep, src_len) for source in sources]
            history.select(keep)
            if constraints is not None:
                constraints.select(keep)
            limits, max_penalty, free = limits[keep], max_penalty[keep], free[keep]
            coverage = coverage[:, :src_len]
            new_index = torch.cumsum(sentence_open, dim=0) - 1
            slot = new_index[sentence] * width + slot % width
            sentence = new_index[sentence]
    return history.best()


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(dim=0)


def _next_log_probs(logits: list[Tensor]) -> Tensor:
    """Return the log of the mean probability over the members, `[rows, vocab]`."""
    log_probs = [torch.log_softmax(member_logits.float(), dim=1) for member_logits in logits]
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.logsumexp(torch.stack(log_probs), dim=0) - math.log(len(log_probs))


def _mask_tokens(
    log_probs: Tensor, sentence: Tensor, at_limit: Tensor, *, eos_allowed: bool
) -> None:
    """Set tokens that may not follow to -inf, in place, without renormalising.

    Args:
        log_probs: of the next token, `[rows, vocab]`.
        sentence: of each row.
        at_limit: sentences whose only continuation is EOS, `[sentences]`.
        eos_allowed: whether EOS may follow.
    """
    for id_ in (PAD, UNK, BOS) if eos_allowed else (PAD, UNK, BOS, EOS):
        log_probs[:, id_] = -torch.inf
    if bool(at_limit.any()):
        eos = log_probs[:, EOS].clone()
        log_probs.masked_fill_(at_limit[sentence].unsqueeze(1), -torch.inf)
        log_probs[:, EOS] = eos


def _mask_repeats(log_probs: Tensor, prefixes: Tensor, size: int) -> None:
    """Set tokens that would complete an n-gram that the prefix contains to -inf, in place.

    Args:
        log_probs: `[rows, vocab]`.
        prefixes: ids so far, `[rows, length]`, at least `size`.
        size: n.
    """
    length = prefixes.shape[1]
    ngrams = prefixes.unfold(1, size, 1)  # [rows, length - size + 1, size]
    latest = prefixes[:, length - size + 1 :].unsqueeze(1)
    matches = (ngrams[:, :, :-1] == latest).all(dim=2)
    # Where nothing matches, set PAD, which is -inf already.
    log_probs.scatter_(1, ngrams[:, :, -1].masked_fill(~matches, PAD), -torch.inf)


class _History:
    """The choices of each step, and the best finished hypotheses.

    Args:
        batch: number of sentences.
        n_best: finished hypotheses to keep per sentence.
        src_len: of the longest source.
        device: of the search.
    """

    def __init__(self, batch: int, n_best: int, src_len: int, device: torch.device) -> None:
        self.src_len = src_len
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []  # parents, tokens, attention
        # Row of each sentence of the whole batch in the tensors of a step; -1 once removed.
        self.rows: list[Tensor] = []
        self._current_rows = torch.arange(batch, device=device)
        self.sentences = self._current_rows  # sentences still in the batch
        # The best finished hypotheses of all sentences: score, log-probability, and the step and
        # slot where EOS was chosen. Equal scores stay in the order in which they finished.
        self.scores = torch.full((batch, n_best), -torch.inf, device=device)
        self.log_probs = self.scores.clone()
        self.ends = torch.zeros(batch, n_best, 2, dtype=torch.long, device=device)
        self.worst = self.scores[:, -1]  # n-th best score of the sentences still in the batch

    def record(
        self, parents: Tensor, tokens: Tensor, values: Tensor, scores: Tensor, attention: Tensor
    ) -> None:
        """Record a step.

        Args:
            parents: slot in the previous step, `[sentences, beam]`.
            tokens: chosen ids, the same shape.
            values: log-probabilities, the same shape.
            scores: -inf unless finished, the same shape.
            attention: of the previous step's slots, `[sentences, width, src_len]`.
        """
        step = len(self.steps)
        self.steps.append((parents, tokens, attention))
        self.rows.append(self._current_rows)
        if not bool((scores > -torch.inf).any()):
            return
        index, n_best = self.sentences, self.scores.shape[1]
        slots = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        ends = torch.stack([torch.full_like(slots, step), slots], dim=2)
        scores = torch.cat([self.scores[index], scores], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        order = order[:, :n_best]
        self.scores[index] = scores[:, :n_best]
        self.log_probs[index] = torch.cat([self.log_probs[index], values], dim=1).gather(1, order)
        ends = torch.cat([self.ends[index], ends], dim=1)
        self.ends[index] = ends.gather(1, order.unsqueeze(2).expand(-1, -1, 2))
        self.worst = self.scores[index, -1]

    def select(self, keep: Tensor) -> None:
        """Remove all sentences but those at positions `keep`."""
        self.sentences = self.sentences[keep]
        self.worst = self.worst[keep]
        self._current_rows = torch.full_like(self.rows[0], -1)
        self._current_rows[self.sentences] = torch.arange(len(keep), device=keep.device)

    def best(self) -> list[list[Hypothesis]]:
        """Return the finished hypotheses of each sentence, following the parents back."""
        sentence, rank = torch.nonzero(self.scores > -torch.inf, as_tuple=True)
        last_step, slot = self.ends[sentence, rank].unbind(dim=1)
        steps = int(last_step.max()) + 1 if len(last_step) else 0
        ids = torch.full((len(last_step), steps), PAD, device=last_step.device)
        attention = torch.zeros(len(last_step), steps, self.src_len, device=last_step.device)
        for step in range(steps - 1, -1, -1):
            active = torch.nonzero(last_step >= step).squeeze(1)  # hypotheses this long
            parents, tokens, step_attention = self.steps[step]
            rows = self.rows[step][sentence[active]]
            ids[active, step] = tokens[rows, slot[active]]
            slot[active] = parents[rows, slot[active]]
            attention[active, step, : step_attention.shape[2]] = step_attention[rows, slot[active]]
        hypotheses: list[list[Hypothesis]] = [[] for _ in self.scores]
        attention = attention.cpu()
        log_probs, scores = self.log_probs[sentence, rank], self.scores[sentence, rank]
        columns = (sentence, last_step, log_probs, scores, ids)
        for row, (index, length, log_prob, score, row_ids) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            row_attention = attention[row, : length + 1]
            hypotheses[index].append(Hypothesis(row_ids[:length], log_prob, score, row_attention))
        return hypotheses
