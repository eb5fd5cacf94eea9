#!/usr/bin/env python3
"""Compare every Triton kernel, and the whole recurrence on them, with its plain twin.

    TRITON_INTERPRET=1 python scripts/kernel_checks.py --device cpu   # without a GPU
    python scripts/kernel_checks.py --device cuda

    python scripts/kernel_checks.py --compile-for 90                  # sm_90; needs no GPU

One JSON record a line: what, sizes, and the largest error as a share of the largest number
in the twin's result. Exit status 1 if one is too large. `scripts/bench.py gpu` does the same
before it measures, at the sizes that it measures.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from nmt.model.fast.kernels import PLAIN, Kernels, OnTriton
from nmt.model.fast.recurrence_cuda import Inputs, recurrence
from nmt.symbols import PAD

# The twin adds up in float32 too: what differs is the order of sums, an exponential, and the
# rounding of results to what they are stored in.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
# Over many steps roundings meet products; the two recurrences drift apart slowly.
DRIFT = {torch.float32: 2e-4, torch.bfloat16: 4e-2}


@dataclass(frozen=True)
class Sizes:
    """Of one comparison; `hidden` of the GRU, `states` of an encoder state."""

    batch: int
    src_len: int
    trg_len: int
    units: int
    states: int
    hidden: int


# Lengths and widths that are no powers of two, one token alone, padded sentences.
SMALL = (
    Sizes(batch=3, src_len=7, trg_len=3, units=24, states=20, hidden=12),
    Sizes(batch=2, src_len=1, trg_len=1, units=100, states=36, hidden=40),
    Sizes(batch=2, src_len=33, trg_len=2, units=100, states=52, hidden=72),
)
TYPICAL = Sizes(batch=2, src_len=12, trg_len=2, units=1024, states=1024, hidden=1024)
_TYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.uint8: "u8", torch.int64: "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Of one comparison. `error` is None where it could not be made: see `failure`."""

    what: str
    sizes: Sizes
    dtype: str
    error: float | None
    tolerance: float
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return self.error is not None and self.error <= self.tolerance

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passed": self.passed}


def make_inputs(sizes: Sizes, device: torch.device, dtype: torch.dtype, seed: int = 1) -> Inputs:
    """Random inputs of the recurrence; the last sentence is the longest, others are padded."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(device)

    lengths = torch.randint(1, sizes.src_len + 1, (sizes.batch,), generator=generator)
    lengths[-1] = sizes.src_len
    mask = torch.arange(sizes.src_len) < lengths.unsqueeze(1)
    three, rows = 3 * sizes.hidden, 3 * sizes.hidden + sizes.units
    return Inputs(
        numbers(sizes.batch, sizes.trg_len, three).to(dtype),
        numbers(sizes.batch, sizes.hidden, scale=0.5).to(dtype),
        numbers(rows, sizes.hidden, scale=sizes.hidden**-0.5),
        numbers(rows, scale=0.1),
        numbers(three, sizes.states, scale=sizes.states**-0.5),
        numbers(sizes.units, scale=2 * max(sizes.units, 1) ** -0.5),
        numbers(sizes.batch, sizes.src_len, sizes.units).to(dtype),
        numbers(sizes.batch, sizes.src_len, sizes.states, scale=0.5).to(dtype),
        mask.to(device),
    )


@dataclass(frozen=True)
class Case:
    """One kernel on random inputs.

    Attributes:
        buffers: makes what it writes into, anew.
        run: runs it on them; returns what it made besides, if anything.
    """

    buffers: Callable[[], tuple[Tensor, ...]]
    run: Callable[..., tuple[Tensor, ...]]

    def __call__(self, kernels: Kernels) -> tuple[Tensor, ...]:
        """All that the kernel writes."""
        buffers = self.buffers()
        return (*buffers, *self.run(kernels, *buffers))


def cases(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Case]:
    """Each kernel by name, and its variants."""
    i = make_inputs(sizes, device, dtype)
    assert i.keys is not None
    assert i.score is not None
    assert i.encoder_states is not None
    assert i.src_mask is not None
    source = (i.keys, i.encoder_states, i.score, i.src_mask)
    batch, steps, three = sizes.batch, sizes.trg_len, 3 * sizes.hidden
    generator = torch.Generator().manual_seed(2)

    def kept(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    recurrent = kept(steps, batch, three + sizes.units)
    queries = recurrent[:, :, three:]  # strided, as in the loop
    d_contexts, d_states = kept(steps, batch, sizes.states), kept(batch, steps, sizes.hidden)
    product, candidate = kept(batch, sizes.hidden), kept(batch, sizes.hidden).tanh()
    from_context, before = kept(batch, three), i.first_state
    energies = torch.randn(steps, batch, sizes.src_len, generator=generator).to(device)
    attention = torch.softmax(energies.masked_fill(~i.src_mask, -torch.inf), dim=2)
    d_energies = energies * attention
    d_attention = energies.transpose(0, 1).contiguous()  # batch first, as it comes

    def look(kernels: Kernels, weights: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        kernels.look(queries[0], *source, weights, context)
        return ()

    def look_backward(
        kernels: Kernels, d_energy: Tensor, d_recurrent: Tensor, outside: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        kernels.look_backward(
            d_contexts[0], outside, attention[0], queries[0], *source, d_energy,
            d_recurrent[:, three:],
        )  # fmt: skip
        return ()

    def look_backward_both(kernels: Kernels, *buffers: Tensor) -> tuple[Tensor, ...]:
        return look_backward(kernels, *buffers, outside=d_attention[:, 0])

    def look_finish(kernels: Kernels) -> tuple[Tensor, ...]:
        keys, _, score, mask = source
        return kernels.look_finish(queries, d_energies, keys, score, mask)

    def spread(kernels: Kernels) -> tuple[Tensor, ...]:
        return (kernels.spread(attention, d_contexts),)

    def gates(kernels: Kernels, *buffers: Tensor) -> tuple[Tensor, ...]:
        kernels.gates(i.word_gates[:, 0], from_context, *buffers)
        return ()

    def gates_alone(kernels: Kernels, *buffers: Tensor) -> tuple[Tensor, ...]:
        kernels.gates(i.word_gates[:, 0], None, *buffers)
        return ()

    def gates_backward(
        kernels: Kernels, carried: Tensor, opened: Tensor, d_given: Tensor, d_recurrent: Tensor
    ) -> tuple[Tensor, ...]:
        kernels.gates_backward(
            d_states[:, 0], carried, product, opened, candidate, before, d_given, d_recurrent
        )
        return ()

    vocab = 3 * sizes.units + 1
    bias = torch.randn(vocab, generator=generator).to(device)
    reference = torch.randint(1, vocab, (batch,), generator=generator)
    reference[-1] = PAD  # counts for nothing
    reference = reference.to(device)
    scores = 3 * kept(batch, vocab)

    def cross_entropy(kernels: Kernels, logits: Tensor) -> tuple[Tensor, ...]:
        return kernels.cross_entropy(logits, bias, reference, 0.1)

    def like(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(tensor) for tensor in tensors)

    def of_gates() -> tuple[Tensor, ...]:
        return (recurrent[0].clone(), before.to(torch.float32, copy=True), *like(before, before))

    def of_gates_backward() -> tuple[Tensor, ...]:
        opened = recurrent[0].sigmoid()
        return (before.float() + 1, opened, *like(from_context, opened))

    return {
        "look": Case(lambda: like(attention[0], d_contexts[0]), look),
        "look_backward": Case(lambda: like(attention[0], recurrent[0]), look_backward),
        "look_backward_both": Case(lambda: like(attention[0], recurrent[0]), look_backward_both),
        "look_finish": Case(tuple, look_finish),
        "spread": Case(tuple, spread),
        "gates": Case(of_gates, gates),
        "gates_alone": Case(of_gates, gates_alone),
        "cross_entropy": Case(lambda: (scores.clone(),), cross_entropy),
        "gates_backward": Case(of_gates_backward, gates_backward),
    }


def whole_recurrence(
    sizes: Sizes, device: torch.device, dtype: torch.dtype, *, query: str | None = "state"
) -> Callable[[Kernels], tuple[Tensor, ...]]:
    """Outputs and all gradients of the loop, as a function of the implementation.

    Args:
        sizes: of the inputs.
        device: where they are.
        dtype: of products.
        query: ``state``, ``state+word``, or None for no attention.
    """
    attention = query is not None
    i = make_inputs(sizes if attention else replace(sizes, units=0), device, dtype)
    if query == "state+word":
        asked = make_inputs(replace(sizes, hidden=sizes.units), device, dtype, seed=2).word_gates
        i = replace(i, word_gates=torch.cat([i.word_gates, asked[:, :, : sizes.units]], dim=2))
    looks = (i.context_weight, i.score, i.keys, i.encoder_states)
    given = [i.word_gates, i.first_state, i.weight, i.bias, *(looks if attention else ())]

    def run(kernels: Kernels) -> tuple[Tensor, ...]:
        leaves = [
            tensor.detach().clone().requires_grad_() for tensor in given if tensor is not None
        ]
        rest = (i.src_mask,) if attention else (None,) * 5
        states, contexts, weights = recurrence(*leaves, *rest, kernels=kernels)
        generator = torch.Generator().manual_seed(3)
        # As the readout's gradient comes: a piece of something wider.
        wide = torch.randn(*states.shape[:2], states.shape[2] + contexts.shape[2],
                           generator=generator).to(device, dtype)  # fmt: skip
        of_states, of_contexts = wide.split([states.shape[2], contexts.shape[2]], dim=2)
        outputs = (states, contexts, weights) if attention else (states,)
        of_weights = torch.randn(weights.shape, generator=generator).to(device)
        torch.autograd.backward(outputs, (of_states, of_contexts, of_weights)[: len(outputs)])
        return (*outputs, *(_must(leaf.grad) for leaf in leaves))

    return run


def compare(
    what: str,
    function: Callable[[Kernels], tuple[Tensor, ...]],
    sizes: Sizes,
    dtype: torch.dtype,
    tolerance: float,
    kernels: Kernels,
) -> Outcome:
    """Largest difference of the two implementations over all results."""
    name = str(dtype).removeprefix("torch.")
    try:
        error = max(
            difference(fast, plain)
            for fast, plain in zip(function(kernels), function(PLAIN), strict=True)
        )
    except Exception:  # a kernel that does not compile must not hide what others do
        return Outcome(what, sizes, name, None, tolerance, traceback.format_exc(limit=-4)[-3000:])
    return Outcome(what, sizes, name, error, tolerance)


def difference(fast: Tensor, plain: Tensor) -> float:
    """Largest error, as a share of the largest number; infinite where one is no number."""
    if plain.numel() == 0:
        return 0.0
    fast, plain = fast.detach().double(), plain.detach().double()
    if not (fast.isfinite().all() and plain.isfinite().all()):
        return float("inf")
    return float((fast - plain).abs().max() / plain.abs().max().clamp_min(1e-30))


def checks(
    all_sizes: tuple[Sizes, ...],
    device: torch.device,
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
    kernels: Kernels | None = None,
) -> Iterator[Outcome]:
    """Every comparison at every size, one by one."""
    kernels = kernels or OnTriton()
    for dtype in dtypes:
        for sizes in all_sizes:
            for what, function in cases(sizes, device, dtype).items():
                yield compare(what, function, sizes, dtype, TOLERANCE[dtype], kernels)
            for query in ("state", "state+word", None):
                function = whole_recurrence(sizes, device, dtype, query=query)
                what = f"recurrence, query {query}" if query else "recurrence without attention"
                yield compare(what, function, sizes, dtype, DRIFT[dtype], kernels)


def compile_all(sizes: Sizes, dtype: torch.dtype, capability: int) -> Iterator[Outcome]:
    """Compile what the recurrence would launch at these sizes, for a GPU that is not here."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    launched: dict[str, tuple[Any, ...]] = {}

    class Recorder(OnTriton):
        def _of(self, name: str) -> Any:
            function = super()._of(name)

            def note(*arguments: Any, num_warps: int, **constants: Any) -> None:
                if name not in launched:
                    launched[name] = (function, arguments, constants, num_warps)

            return _Grid(note)

    for function in cases(sizes, torch.device("cpu"), dtype).values():
        function(Recorder())
    for name, (function, arguments, constants, warps) in launched.items():
        source = ASTSource(function, *_signature(function, arguments, constants))
        target, options = GPUTarget("cuda", capability, 32), {"num_warps": warps}
        failure = None
        try:
            compile(source, target, options=options)
        except Exception:
            failure = traceback.format_exc(limit=-4)[-3000:]
        what, kind = f"{name} for sm_{capability}", str(dtype).removeprefix("torch.")
        yield Outcome(what, sizes, kind, None if failure else 0.0, 0.0, failure)


def _signature(
    function: Any, arguments: tuple[Any, ...], constants: dict[str, Any]
) -> tuple[dict[str, str], dict[tuple[int], Any], dict[tuple[int], Any]]:
    """Types, constants and alignments of a launch, as Triton's compiler takes them."""
    types: dict[str, str] = {}
    fixed: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    positional = iter(arguments)
    for place, parameter in enumerate(function.params):
        value = constants[parameter.name] if parameter.name in constants else next(positional)
        if parameter.is_constexpr:
            types[parameter.name], fixed[(place,)] = "constexpr", value
        elif isinstance(value, Tensor):
            types[parameter.name] = "*" + _TYPES[value.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            types[parameter.name] = "i32" if isinstance(value, int) else "fp32"
    return types, fixed, attributes


class _Grid:
    """Takes the place of a kernel: a launch is only noted."""

    def __init__(self, note: Callable[..., None]) -> None:
        self.note = note

    def __getitem__(self, _grid: tuple[int, ...]) -> Callable[..., None]:
        return self.note


def main(
    device: Annotated[str, typer.Option(help="cpu with TRITON_INTERPRET=1, or cuda")] = "cuda",
    compile_for: Annotated[
        int | None, typer.Option(help="only compile, for this compute capability, 90 for sm_90")
    ] = None,
) -> None:
    """Print a JSON record for each comparison."""
    if compile_for is None:
        # Small tiles, so that even these sizes take several.
        outcomes = checks(SMALL, torch.device(device), kernels=OnTriton(tile=256))
    else:
        outcomes = compile_all(TYPICAL, torch.bfloat16, compile_for)
    passed = True
    for outcome in outcomes:
        print(json.dumps(outcome.record()), flush=True)
        passed &= outcome.passed
    sys.exit(0 if passed else 1)


def _must(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


if __name__ == "__main__":
    typer.run(main)
