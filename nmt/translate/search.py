"""Beam search, vectorised over sentences and hypotheses.

Read `beam_search` top to bottom; these are its rules:

- A hypothesis ends with EOS and with nothing else. At the longest length allowed EOS is
  the only continuation, so the log-probability of every hypothesis is that of its ids
  and EOS, exactly what teacher forcing gives the same ids.
- A finished hypothesis keeps its place in the beam: the search goes on with one place
  fewer. A beam of 1 is therefore greedy search, and a beam as wide as the tree holds
  every sequence there is.
- A sentence is done when no open hypothesis can still beat the finished ones. The bound
  takes the best open log-probability, which can only fall, over the largest length
  penalty it could get: nothing better is ever missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.model import Seq2Seq
from nmt.symbols import BOS, EOS, PAD, UNK

_EXTRA_LENGTH = 10  # tokens allowed beyond max_ratio, for very short sources
_LEAVE_SHARE = 0.25  # of the batch done before it is worth making it smaller


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation in ids.

    Attributes:
        ids: without BOS and EOS.
        log_prob: natural log of its probability, EOS counted.
        score: log_prob / length_penalty; ranks hypotheses of one sentence.
        attention: a_ij for each id and for EOS, `[length + 1, src_len]`.
    """

    ids: list[int]
    log_prob: float
    score: float
    attention: Tensor


def length_penalty(length: float, alpha: float) -> float:
    """((5 + length) / 6) ** alpha (Wu et al. 2016, eq. 14); length without BOS and EOS."""
    return float(((5 + length) / 6) ** alpha)


def max_length(src_len: int, max_ratio: float) -> int:
    """Most tokens of a translation, EOS not counted, for a source of `src_len` tokens."""
    return int(src_len * max_ratio) + _EXTRA_LENGTH


@torch.inference_mode()
def beam_search(
    model: Seq2Seq,
    src: Tensor,
    src_mask: Tensor,
    *,
    beam: int,
    alpha: float,
    max_lengths: Tensor,
    min_length: int = 1,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Search for the best translations of a batch.

    Args:
        model: in evaluation mode.
        src: ids, `[batch, src_len]`; no sentence empty.
        src_mask: True on real tokens, `[batch, src_len]`.
        beam: hypotheses followed for each sentence.
        alpha: exponent of the length penalty; 0 ranks by log-probability.
        max_lengths: most tokens for each sentence, EOS not counted, `[batch]`.
        min_length: fewest tokens, EOS not counted.
        n_best: hypotheses returned for each sentence, at most `beam`.

    Returns:
        For each sentence its hypotheses, best score first.
    """
    device, batch = src.device, src.shape[0]
    memory, first = model.encode(src, src_mask)
    trail = _Trail(batch, beam, src.shape[1])
    # Of the sentences still searched: which ones they are, and their open hypotheses.
    rows = torch.arange(batch, device=device)
    state = first.unsqueeze(1).expand(-1, beam, -1)  # [rows, beam, hidden]
    tokens = torch.full((batch, beam), BOS, device=device)
    alive = torch.full((batch, beam), -torch.inf, device=device)  # log-probabilities
    alive[:, 0] = 0.0  # all begin alike: one is enough
    finished = torch.full((batch, beam), -torch.inf, device=device)  # scores
    used = torch.zeros(batch, dtype=torch.long, device=device)  # places taken by finished ones
    limits = max_lengths.to(device)
    best_penalty = ((5.0 + limits) / 6.0) ** alpha
    place = torch.arange(beam, device=device)

    for length in range(int(max_lengths.max()) + 1):
        embedded = model.decoder.embedding(tokens)
        state, context, attention = model.decoder.step(
            model.decoder.word_gates(embedded), state, memory
        )
        logits = model.decoder.logits(model.decoder.read_out(state, context, embedded)).float()
        parents, tokens, values = _candidates(
            logits, alive, must_end=limits <= length, may_end=length >= min_length
        )
        # The places that finished hypotheses hold are no longer there to be filled.
        values = values.masked_fill(place >= (beam - used).unsqueeze(1), -torch.inf)
        ends = (tokens == EOS) & (values > -torch.inf)
        scores = torch.where(ends, values / length_penalty(length, alpha), -torch.inf)
        trail.record(rows, parents, tokens, values, scores, attention)

        finished = torch.cat([finished, scores], dim=1).topk(beam, dim=1).values
        used = used + ends.sum(dim=1)
        alive = values.masked_fill(ends, -torch.inf)
        state = state.gather(1, parents.unsqueeze(2).expand_as(state))

        open_bound = alive.max(dim=1).values / best_penalty
        done = open_bound <= finished[:, n_best - 1]
        if bool(done.all()):
            break
        if float(done.sum()) >= _LEAVE_SHARE * len(rows):
            keep = torch.nonzero(~done).squeeze(1)
            longest = int(memory.src_mask[keep].sum(dim=1).max())
            memory = memory.select(keep, longest)
            rows, state, tokens, alive = rows[keep], state[keep], tokens[keep], alive[keep]
            finished, used = finished[keep], used[keep]
            limits, best_penalty = limits[keep], best_penalty[keep]
    return trail.best(n_best)


def _candidates(
    logits: Tensor, alive: Tensor, *, must_end: Tensor, may_end: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The `beam` best continuations of each sentence's open hypotheses.

    Args:
        logits: `[rows, beam, vocab]`; overwritten.
        alive: log-probabilities so far, `[rows, beam]`.
        must_end: sentences for which only EOS is left, `[rows]`.
        may_end: whether EOS is allowed.

    Returns:
        Parent place, token and log-probability, each `[rows, beam]`, best first.
    """
    rows, beam, vocab = logits.shape
    total = torch.logsumexp(logits, dim=2, keepdim=True)  # over everything: masks take no share
    logits[:, :, [PAD, UNK, BOS]] = -torch.inf
    if not may_end:
        logits[:, :, EOS] = -torch.inf
    if bool(must_end.any()):
        only_end = torch.full((vocab,), -torch.inf, device=logits.device)
        only_end[EOS] = 0.0
        logits = torch.where(must_end[:, None, None], logits + only_end, logits)
    # Each hypothesis can place at most `beam` of its own continuations.
    width = min(beam, vocab)
    top, token = logits.topk(width, dim=2)
    values = (alive.unsqueeze(2) + (top - total)).reshape(rows, beam * width)
    values, flat = values.topk(beam, dim=1)
    tokens = token.reshape(rows, beam * width).gather(1, flat)
    return torch.div(flat, width, rounding_mode="floor"), tokens, values


class _Trail:
    """What was chosen at each step, to walk back along when the search is over."""

    def __init__(self, batch: int, beam: int, src_len: int) -> None:
        self.batch, self.beam, self.src_len = batch, beam, src_len
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []  # parents, tokens, attention
        self.places: list[Tensor] = []  # where each sentence stands in a step's tensors
        self.ends: list[list[tuple[float, float, int, int]]] = [[] for _ in range(batch)]

    def record(
        self,
        rows: Tensor,
        parents: Tensor,
        tokens: Tensor,
        values: Tensor,
        scores: Tensor,
        attention: Tensor,
    ) -> None:
        step = len(self.steps)
        places = torch.full((self.batch,), -1)
        rows = rows.cpu()
        places[rows] = torch.arange(len(rows))
        self.places.append(places)
        self.steps.append((parents.cpu(), tokens.cpu(), attention.cpu()))
        values, scores = values.cpu(), scores.cpu()
        for row, place in torch.nonzero(scores > -torch.inf).tolist():
            end = (float(scores[row, place]), float(values[row, place]), step, place)
            self.ends[int(rows[row])].append(end)

    def best(self, n: int) -> list[list[Hypothesis]]:
        # Equal scores: the one found first, then the higher place, so that order is fixed.
        return [
            [
                self._walk_back(sentence, end)
                for end in sorted(ends, key=lambda end: (-end[0], end[2], end[3]))[:n]
            ]
            for sentence, ends in enumerate(self.ends)
        ]

    def _walk_back(self, sentence: int, end: tuple[float, float, int, int]) -> Hypothesis:
        score, log_prob, step, place = end
        ids: list[int] = []
        attention = torch.zeros(step + 1, self.src_len)
        for at in range(step, -1, -1):
            parents, tokens, looked = self.steps[at]
            row = int(self.places[at][sentence])
            if at < step:  # the last token is EOS
                ids.append(int(tokens[row, place]))
            place = int(parents[row, place])
            attention[at, : looked.shape[2]] = looked[row, place]
        return Hypothesis(ids[::-1], log_prob, score, attention)
