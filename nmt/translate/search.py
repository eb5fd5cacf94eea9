"""Beam search, vectorised over sentences and hypotheses.

Read `beam_search` top to bottom; these are its rules:

- A hypothesis ends with EOS and with nothing else. At the longest length allowed EOS is
  the only continuation, so the log-probability of every hypothesis is that of its ids
  and EOS, exactly what teacher forcing gives the same ids.
- A finished hypothesis keeps its place in the beam: the search goes on with one place
  fewer. A beam of 1 is therefore greedy search, and a beam as wide as the tree holds
  every sequence there is.
- An open hypothesis is dropped once it can't beat the finished ones any more, and a
  sentence is done when it has none left. The bound takes its log-probability, which can
  only fall, over the largest length penalty it could get, and the best coverage there is:
  nothing better is ever missed. What is ranked behind such a hypothesis could not win
  either, so dropping it takes nothing from the beam.

Tensors have two layouts. What is chosen among has a place for each hypothesis of a
sentence, `[sentences, beam]`; what is multiplied has one row for each *open* hypothesis,
`[rows, ...]`, so that finished ones cost nothing.
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

_EXTRA_LENGTH = 10  # tokens allowed beyond max_ratio, for very short sources
_LEAVE_SHARE = 0.25  # of the batch done before it is worth making it smaller
_LEAST_COVERAGE = 1e-6  # a token that nothing looked at costs log of this, not infinity


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation in ids.

    Attributes:
        ids: without BOS and EOS.
        log_prob: natural log of its probability, EOS counted.
        score: log_prob / length_penalty + coverage_penalty; ranks hypotheses of one
            sentence.
        attention: a_ij for each id and for EOS, `[length + 1, src_len]`.
    """

    ids: list[int]
    log_prob: float
    score: float
    attention: Tensor


def length_penalty(length: float, alpha: float) -> float:
    """((5 + length) / 6) ** alpha (Wu et al. 2016, eq. 14); length without BOS and EOS."""
    return float(((5 + length) / 6) ** alpha)


def coverage_penalty(covered: Tensor, src_mask: Tensor, beta: float) -> Tensor:
    """Beta * sum_j log(min(sum_i a_ij, 1)), at most 0 (Wu et al. 2016, eq. 14).

    Args:
        covered: attention summed over the target tokens, EOS counted, `[..., src_len]`.
        src_mask: True on real tokens, the same shape.
        beta: its weight.
    """
    logs = covered.clamp(_LEAST_COVERAGE, 1.0).log().masked_fill(~src_mask, 0.0)
    return beta * logs.sum(dim=-1)


def max_length(src_len: int, max_ratio: float) -> int:
    """Most tokens of a translation, EOS not counted, for a source of `src_len` tokens."""
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
) -> list[list[Hypothesis]]:
    """Search for the best translations of a batch.

    Args:
        model: in evaluation mode; made ready for search, or as it is; or several with the
            same vocabularies, whose next-token probabilities are averaged.
        src: ids, `[batch, src_len]`; no sentence empty.
        src_mask: True on real tokens, `[batch, src_len]`.
        beam: hypotheses followed for each sentence.
        alpha: exponent of the length penalty; 0 ranks by log-probability.
        max_lengths: most tokens for each sentence, EOS not counted, `[batch]`.
        n_best: hypotheses returned for each sentence, at most `beam`.
        beta: weight of the coverage penalty; it ranks finished hypotheses only.
        no_repeat: no run of so many ids stands twice in a hypothesis; 0 allows all.

    Returns:
        For each sentence its hypotheses, best score first; fewer than `n_best` only if
        the tree has no more.
    """
    if isinstance(model, Seq2Seq):
        model = Inference(model)
    members = [model] if isinstance(model, Inference) else list(model)
    device, batch = src.device, src.shape[0]
    begun = [member.begin(src, src_mask) for member in members]
    sources = [source for source, _, _ in begun]
    states = [state for _, state, _ in begun]
    products = [made for _, _, made in begun]
    trail = _Trail(batch, n_best, src.shape[1], device)

    # Of the sentences still searched:
    limits = max_lengths.to(device)
    best_penalty = ((5.0 + limits) / 6.0) ** alpha  # the largest any hypothesis can get
    free = torch.full_like(limits, beam)  # places not taken by finished hypotheses
    # Of the open hypotheses: all begin alike, one is enough.
    sentence = torch.arange(batch, device=device)
    place = sentence  # in the beams of all sentences, end to end
    tokens = torch.full((batch,), BOS, device=device)
    log_prob = torch.zeros(batch, device=device)
    covered = torch.zeros(batch, src.shape[1], device=device)
    history = torch.empty(batch, 0, dtype=torch.long, device=device)
    width = 1  # places a sentence has now

    for length in range(int(max_lengths.max()) + 1):
        # One step of the network for each row.
        made = [
            member.step(tokens, state, product, source, place, width)
            for member, state, product, source in zip(
                members, states, products, sources, strict=True
            )
        ]
        states = [state for state, _, _, _ in made]
        products = [product for _, product, _, _ in made]
        attention = _mean([looked for _, _, _, looked in made])  # [sentences, width, src_len]
        follow = _next_log_probs([logits for _, _, logits, _ in made])  # [rows, vocab]
        if beta > 0:
            covered = covered + attention.flatten(0, 1)[place]

        # The best continuations of each sentence.
        _forbid(follow, sentence, limits <= length, may_end=length > 0)
        if no_repeat and length >= no_repeat:
            _forbid_repeats(follow, history, no_repeat)
        best, token = follow.topk(min(beam, follow.shape[1]), dim=1)
        each = best.shape[1]
        candidates = best.new_full((len(limits) * width, each), -torch.inf)
        candidates[place] = best + log_prob.unsqueeze(1)
        candidates = candidates.view(len(limits), width * each)
        values, flat = candidates.topk(min(beam, width * each), dim=1)
        parents = torch.div(flat, each, rounding_mode="floor")  # [sentences, beam]
        row_of = torch.zeros(len(limits) * width, dtype=torch.long, device=device)
        row_of[place] = torch.arange(len(place), device=device)
        parent_rows = row_of.view(len(limits), width).gather(1, parents)
        chosen = token[parent_rows, flat % each]

        # Those that end take a place for good.
        places = torch.arange(values.shape[1], device=device)
        valid = (values > -torch.inf) & (places < free.unsqueeze(1))
        ends = valid & (chosen == EOS)
        free = free - ends.sum(dim=1)
        scores = values / length_penalty(length, alpha)
        if beta > 0:
            mask = sources[0].mask.unsqueeze(1).expand(-1, values.shape[1], -1)
            scores = scores + coverage_penalty(covered[parent_rows], mask, beta)
        scores = scores.masked_fill(~ends, -torch.inf)
        trail.record(parents, chosen, values, scores, attention)

        # Those that go on, as rows of the next step.
        hopeful = values / best_penalty.unsqueeze(1) > trail.worst.unsqueeze(1)
        going = valid & ~ends & hopeful
        left = going.any(dim=1)
        width = values.shape[1]
        place = torch.nonzero(going.view(-1)).squeeze(1)
        if len(place) == 0:
            break
        sentence = torch.div(place, width, rounding_mode="floor")
        rows = parent_rows.view(-1)[place]
        tokens, log_prob = chosen.view(-1)[place], values.view(-1)[place]
        states = [state.index_select(0, rows) for state in states]
        products = [product.index_select(0, rows) for product in products]
        if beta > 0:
            covered = covered[rows]
        if no_repeat:
            history = torch.cat([history[rows], tokens.unsqueeze(1)], dim=1)

        # Sentences without any leave the batch.
        if float(left.sum()) <= (1 - _LEAVE_SHARE) * len(left):
            keep = torch.nonzero(left).squeeze(1)
            longest = int(sources[0].mask[keep].sum(dim=1).max())
            sources = [source.select(keep, longest) for source in sources]
            trail.select(keep)
            limits, best_penalty, free = limits[keep], best_penalty[keep], free[keep]
            covered = covered[:, :longest]
            moved = torch.cumsum(left, dim=0) - 1
            place = moved[sentence] * width + place % width
            sentence = moved[sentence]
    return trail.best()


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(dim=0)


def _next_log_probs(logits: list[Tensor]) -> Tensor:
    """Log of the mean probability over the members, `[rows, vocab]`."""
    log_probs = [torch.log_softmax(one.float(), dim=1) for one in logits]
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.logsumexp(torch.stack(log_probs), dim=0) - math.log(len(log_probs))


def _forbid(follow: Tensor, sentence: Tensor, must_end: Tensor, *, may_end: bool) -> None:
    """Set to -inf, in place, what may not follow; what is left keeps its share.

    Args:
        follow: log-probabilities of the next token, `[rows, vocab]`.
        sentence: of each row.
        must_end: sentences for which only EOS is left, `[sentences]`.
        may_end: whether EOS is allowed.
    """
    for id_ in (PAD, UNK, BOS) if may_end else (PAD, UNK, BOS, EOS):
        follow[:, id_] = -torch.inf
    if bool(must_end.any()):
        at_limit = must_end[sentence]
        end = follow[:, EOS].clone()
        follow.masked_fill_(at_limit.unsqueeze(1), -torch.inf)
        follow[:, EOS] = end


def _forbid_repeats(follow: Tensor, history: Tensor, size: int) -> None:
    """Set to -inf, in place, tokens that would end an n-gram the hypothesis holds already.

    Args:
        follow: `[rows, vocab]`.
        history: ids so far, `[rows, length]`, at least `size`.
        size: n.
    """
    length = history.shape[1]
    seen = history.unfold(1, size, 1)  # [rows, length - size + 1, size]
    latest = history[:, length - size + 1 :].unsqueeze(1)
    again = (seen[:, :, :-1] == latest).all(dim=2)
    follow.scatter_(1, seen[:, :, -1].masked_fill(~again, PAD), -torch.inf)  # PAD is out anyway


class _Trail:
    """What was chosen at each step, to walk back along when the search is over.

    Args:
        batch: sentences at the start.
        n_best: finished hypotheses kept of each.
        src_len: of the longest.
        device: of the search.
    """

    def __init__(self, batch: int, n_best: int, src_len: int, device: torch.device) -> None:
        self.src_len = src_len
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []  # parents, tokens, attention
        self.where: list[Tensor] = []  # at which position each sentence stands in a step
        self.here = torch.arange(batch, device=device)  # the sentences still searched
        # The best finished hypotheses of all sentences: score, log-probability, and the
        # step and place where EOS was chosen. Equal scores: the one found first.
        self.scores = torch.full((batch, n_best), -torch.inf, device=device)
        self.log_probs = self.scores.clone()
        self.at = torch.zeros(batch, n_best, 2, dtype=torch.long, device=device)
        self.worst = self.scores[:, -1]  # what a hypothesis has to beat, of those searched
        self._position = self.here

    def record(
        self, parents: Tensor, tokens: Tensor, values: Tensor, scores: Tensor, attention: Tensor
    ) -> None:
        """Remember a step; all but `attention` `[sentences, beam]`, scores -inf unless ended."""
        step = len(self.steps)
        self.steps.append((parents, tokens, attention))
        self.where.append(self._position)
        if not bool((scores > -torch.inf).any()):
            return
        here, n_best = self.here, self.scores.shape[1]
        places = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        ends = torch.stack([torch.full_like(places, step), places], dim=2)
        scores = torch.cat([self.scores[here], scores], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        order = order[:, :n_best]
        self.scores[here] = scores[:, :n_best]
        self.log_probs[here] = torch.cat([self.log_probs[here], values], dim=1).gather(1, order)
        at = torch.cat([self.at[here], ends], dim=1)
        self.at[here] = at.gather(1, order.unsqueeze(2).expand(-1, -1, 2))
        self.worst = self.scores[here, -1]

    def select(self, keep: Tensor) -> None:
        """Go on with some of the sentences."""
        self.here = self.here[keep]
        self.worst = self.worst[keep]
        self._position = torch.full_like(self.where[0], -1)
        self._position[self.here] = torch.arange(len(keep), device=keep.device)

    def best(self) -> list[list[Hypothesis]]:
        """The finished hypotheses of all sentences, by one walk back for all of them."""
        sentence, rank = torch.nonzero(self.scores > -torch.inf, as_tuple=True)
        last, place = self.at[sentence, rank].unbind(dim=1)
        steps = int(last.max()) + 1 if len(last) else 0
        ids = torch.full((len(last), steps), PAD, device=last.device)
        attention = torch.zeros(len(last), steps, self.src_len, device=last.device)
        for step in range(steps - 1, -1, -1):
            # Hypotheses that ended before this step are not on their way yet.
            on = torch.nonzero(last >= step).squeeze(1)
            parents, tokens, looked = self.steps[step]
            at = self.where[step][sentence[on]]
            ids[on, step] = tokens[at, place[on]]
            place[on] = parents[at, place[on]]
            attention[on, step, : looked.shape[2]] = looked[at, place[on]]
        found: list[list[Hypothesis]] = [[] for _ in self.scores]
        attention = attention.cpu()
        for row, (where, length, log_prob, score, its_ids) in enumerate(
            zip(
                sentence.tolist(),
                last.tolist(),
                self.log_probs[sentence, rank].tolist(),
                self.scores[sentence, rank].tolist(),
                ids.tolist(),
                strict=True,
            )
        ):
            looked = attention[row, : length + 1]
            found[where].append(Hypothesis(its_ids[:length], log_prob, score, looked))
        return found
