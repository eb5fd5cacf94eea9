"""Constraints on the search: every span symbol of a source is written exactly once.

For each open hypothesis the search keeps the set of symbols it has written, as a bit mask. A
table per sentence gives, for each such set, the symbols that may follow (`order_table`). A
hypothesis ends only when the set is complete. Near the length limit only symbols may follow,
so that the limit never drops one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nmt.symbols import EOS


class SpanConstraints:
    """The constraints of a batch; see the module.

    Args:
        symbols: ids of the span symbols in the target vocabulary, in order.
        tables: `order_table` of each sentence; ``[0]`` for a sentence without spans.
        limits: maximum tokens of each sentence, EOS not counted, `[batch]`.
        device: of the search.
    """

    def __init__(
        self,
        symbols: Sequence[int],
        tables: Sequence[Sequence[int]],
        limits: Tensor,
        device: torch.device,
    ) -> None:
        width = max(map(len, tables))
        padded = [[*table, *[0] * (width - len(table))] for table in tables]
        self._symbols = torch.tensor(symbols, device=device)
        self._bits = torch.arange(len(symbols), device=device)
        self._tables = torch.tensor(padded, device=device)  # [sentences, 2**spans]
        self._complete = torch.tensor([len(table) - 1 for table in tables], device=device)
        self._limits = limits.to(device)
        self.any = width > 1

    def apply(self, log_probs: Tensor, used: Tensor, sentence: Tensor, length: int) -> None:
        """Set to -inf, in place, what may not follow.

        Args:
            log_probs: of the next token, `[rows, vocab]`.
            used: symbols written so far, as bit masks, `[rows]`.
            sentence: of each row, `[rows]`.
            length: tokens written so far.
        """
        if not self.any:
            log_probs[:, self._symbols] = -torch.inf
            return
        allowed = self._tables[sentence, used].unsqueeze(1) >> self._bits & 1  # [rows, symbols]
        kept = log_probs[:, self._symbols].masked_fill(allowed == 0, -torch.inf)
        missing = self._complete[sentence] & ~used
        open_ = missing != 0
        left = (missing.unsqueeze(1) >> self._bits & 1).sum(dim=1)
        must = open_ & (self._limits[sentence] - length <= left)
        log_probs[:, EOS].masked_fill_(open_, -torch.inf)
        log_probs.masked_fill_(must.unsqueeze(1), -torch.inf)
        log_probs[:, self._symbols] = kept

    def after(self, used: Tensor, tokens: Tensor) -> Tensor:
        """Return the symbols written once `tokens` follow, as bit masks, `[rows]`."""
        if not self.any:
            return used
        is_symbol = tokens.unsqueeze(1) == self._symbols
        return used | (is_symbol.long() << self._bits).sum(dim=1)

    def select(self, keep: Tensor) -> None:
        """Keep some of the sentences."""
        self._tables, self._limits = self._tables[keep], self._limits[keep]
        self._complete = self._complete[keep]
