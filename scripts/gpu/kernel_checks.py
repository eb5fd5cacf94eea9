#!/usr/bin/env python3
"""Compare every Triton kernel, and the recurrence on them, with the reference kernels.

    python scripts/gpu/kernel_checks.py                                   # on a GPU
    TRITON_INTERPRET=1 python scripts/gpu/kernel_checks.py --device cpu   # without a GPU
    python scripts/gpu/kernel_checks.py --compile-for 90                  # compile only, for sm_90

Prints one JSON record per comparison: operation, sizes, and the largest error relative to the
largest value of the reference. The exit status is 1 if an error exceeds its tolerance. The section
`checks` of `scripts/bench_gpu.py` runs the same comparisons at the sizes of training.
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

from nmt.model.fast.kernels import REFERENCE, Kernels
from nmt.model.fast.recurrence import AttentionInputs, RecurrenceInputs, recurrence
from nmt.model.fast.triton_launch import TritonKernels
from nmt.symbols import PAD

# Both sum in float32; they differ in the order of sums, the exponential and the rounding of
# results to the storage type.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
# Rounding errors grow over the steps of the recurrence.
RECURRENCE_TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 4e-2}


@dataclass(frozen=True)
class Sizes:
    """Sizes of one comparison: `states` of an encoder state, `hidden` of the GRU."""

    batch: int
    src_len: int
    trg_len: int
    units: int
    states: int
    hidden: int


# Sizes that are not powers of two, a single token, padded sentences.
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
    """Result of one comparison; `error` is None if it raised `failure`."""

    what: str
    sizes: Sizes
    dtype: str
    error: float | None
    tolerance: float
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error is not None and self.error <= self.tolerance

    def record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "passed": self.passed}


def make_inputs(
    sizes: Sizes, device: torch.device, dtype: torch.dtype, seed: int = 1
) -> RecurrenceInputs:
    """Return random inputs; the last sentence has `src_len` tokens, the others are padded."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(device)

    lengths = torch.randint(1, sizes.src_len + 1, (sizes.batch,), generator=generator)
    lengths[-1] = sizes.src_len
    mask = torch.arange(sizes.src_len) < lengths.unsqueeze(1)
    gate_size, rows = 3 * sizes.hidden, 3 * sizes.hidden + sizes.units
    return RecurrenceInputs(
        normal(sizes.batch, sizes.trg_len, gate_size).to(dtype),
        normal(sizes.batch, sizes.hidden, scale=0.5).to(dtype),
        normal(rows, sizes.hidden, scale=sizes.hidden**-0.5),
        normal(rows, scale=0.1),
        AttentionInputs(
            normal(gate_size, sizes.states, scale=sizes.states**-0.5),
            normal(sizes.units, scale=2 * max(sizes.units, 1) ** -0.5),
            normal(sizes.batch, sizes.src_len, sizes.units).to(dtype),
            normal(sizes.batch, sizes.src_len, sizes.states, scale=0.5).to(dtype),
            mask.to(device),
        ),
    )


@dataclass(frozen=True)
class Case:
    """One operation on random inputs.

    Attributes:
        buffers: returns new output tensors.
        run: calls the operation on them and returns further results.
    """

    buffers: Callable[[], tuple[Tensor, ...]]
    run: Callable[..., tuple[Tensor, ...]]

    def __call__(self, kernels: Kernels) -> tuple[Tensor, ...]:
        """Return all outputs of the operation."""
        buffers = self.buffers()
        return (*buffers, *self.run(kernels, *buffers))


def cases(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Case]:
    """Return the operations and their variants by name."""
    inputs = make_inputs(sizes, device, dtype)
    att = inputs.attention
    assert att is not None
    source = (att.keys, att.encoder_states, att.score, att.src_mask)
    batch, steps, gate_size = sizes.batch, sizes.trg_len, 3 * sizes.hidden
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    recurrent = random(steps, batch, gate_size + sizes.units)
    queries = recurrent[:, :, gate_size:]  # strided as in the loop
    d_contexts, d_states = random(steps, batch, sizes.states), random(batch, steps, sizes.hidden)
    d_product, candidate = random(batch, sizes.hidden), random(batch, sizes.hidden).tanh()
    context_gates, previous = random(batch, gate_size), inputs.initial_state
    energies = torch.randn(steps, batch, sizes.src_len, generator=generator).to(device)
    attention = torch.softmax(energies.masked_fill(~att.src_mask, -torch.inf), dim=2)
    d_energies = energies * attention
    d_attention = energies.transpose(0, 1).contiguous()  # batch first

    def attend(kernels: Kernels, weights: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        kernels.attend(queries[0], *source, weights, context)
        return ()

    def attend_backward(
        kernels: Kernels,
        d_energy: Tensor,
        d_recurrent: Tensor,
        d_attention_arg: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        kernels.attend_backward(
            d_contexts[0], d_attention_arg, attention[0], queries[0], *source, d_energy,
            d_recurrent[:, gate_size:],
        )  # fmt: skip
        return ()

    def attend_backward_both(kernels: Kernels, *buffers: Tensor) -> tuple[Tensor, ...]:
        return attend_backward(kernels, *buffers, d_attention_arg=d_attention[:, 0])

    def key_grads(kernels: Kernels) -> tuple[Tensor, ...]:
        keys, _, score, mask = source
        return kernels.key_grads(queries, d_energies, keys, score, mask)

    def encoder_grads(kernels: Kernels) -> tuple[Tensor, ...]:
        return (kernels.encoder_grads(attention, d_contexts),)

    def gates(kernels: Kernels, *buffers: Tensor) -> tuple[Tensor, ...]:
        kernels.gates(inputs.input_gates[:, 0], context_gates.clone(), *buffers)
        return ()

    def gates_without_context(kernels: Kernels, *buffers: Tensor) -> tuple[Tensor, ...]:
        kernels.gates(inputs.input_gates[:, 0], None, *buffers)
        return ()

    def gates_backward(
        kernels: Kernels, d_carried: Tensor, saved: Tensor, d_input: Tensor, d_recurrent: Tensor
    ) -> tuple[Tensor, ...]:
        kernels.gates_backward(
            d_states[:, 0], d_carried, d_product, saved, candidate, previous, d_input, d_recurrent
        )
        return ()

    vocab = 3 * sizes.units + 1
    bias = torch.randn(vocab, generator=generator).to(device)
    reference = torch.randint(1, vocab, (batch,), generator=generator)
    reference[-1] = PAD
    reference = reference.to(device)
    scores = 3 * random(batch, vocab)

    def cross_entropy(kernels: Kernels, logits: Tensor) -> tuple[Tensor, ...]:
        return kernels.cross_entropy(logits, bias, reference, 0.1)

    def like(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(tensor) for tensor in tensors)

    def gates_buffers() -> tuple[Tensor, ...]:
        return (
            recurrent[0].clone(),
            previous.to(torch.float32, copy=True),
            *like(previous, previous),
        )

    def gates_backward_buffers() -> tuple[Tensor, ...]:
        saved = recurrent[0].sigmoid()
        return (previous.float() + 1, saved, *like(context_gates, saved))

    return {
        "attend": Case(lambda: like(attention[0], d_contexts[0]), attend),
        "attend_backward": Case(lambda: like(attention[0], recurrent[0]), attend_backward),
        "attend_backward_both": Case(
            lambda: like(attention[0], recurrent[0]), attend_backward_both
        ),
        "key_grads": Case(tuple, key_grads),
        "encoder_grads": Case(tuple, encoder_grads),
        "gates": Case(gates_buffers, gates),
        "gates_without_context": Case(gates_buffers, gates_without_context),
        "cross_entropy": Case(lambda: (scores.clone(),), cross_entropy),
        "gates_backward": Case(gates_backward_buffers, gates_backward),
    }


def whole_recurrence(
    sizes: Sizes, device: torch.device, dtype: torch.dtype, *, query: str | None = "state"
) -> Callable[[Kernels], tuple[Tensor, ...]]:
    """Return a function of the kernels that computes outputs and all gradients of the recurrence.

    Args:
        sizes: of the inputs.
        device: of the inputs.
        dtype: of the products.
        query: ``state``, ``state+word``, or None for no attention.
    """
    inputs = make_inputs(sizes if query else replace(sizes, units=0), device, dtype)
    if query is None:
        inputs = replace(inputs, attention=None)
    elif query == "state+word":
        words = make_inputs(replace(sizes, hidden=sizes.units), device, dtype, seed=2).input_gates
        gates = torch.cat([inputs.input_gates, words[:, :, : sizes.units]], dim=2)
        inputs = replace(inputs, input_gates=gates)

    def run(kernels: Kernels) -> tuple[Tensor, ...]:
        leaves = tuple(
            tensor.detach().clone().requires_grad_(tensor.is_floating_point())
            for tensor in inputs.tensors()
        )
        outputs = recurrence(RecurrenceInputs.from_tensors(leaves), kernels)
        states, contexts, attention = outputs
        generator = torch.Generator().manual_seed(3)
        # Strided, like the gradient that the readout's concatenation returns.
        wide = torch.randn(
            *states.shape[:2], states.shape[2] + contexts.shape[2], generator=generator
        ).to(device, dtype)
        d_states, d_contexts = wide.split([states.shape[2], contexts.shape[2]], dim=2)
        d_attention = torch.randn(attention.shape, generator=generator).to(device)
        count = 3 if query else 1
        torch.autograd.backward(outputs[:count], (d_states, d_contexts, d_attention)[:count])
        gradients = (leaf.grad for leaf in leaves if leaf.grad is not None)
        return (*outputs[:count], *gradients)

    return run


def compare(
    what: str,
    function: Callable[[Kernels], tuple[Tensor, ...]],
    sizes: Sizes,
    dtype: torch.dtype,
    tolerance: float,
    kernels: Kernels,
) -> Outcome:
    """Return the largest error of `kernels` over all results."""
    name = str(dtype).removeprefix("torch.")
    try:
        error = max(
            relative_error(result, expected)
            for result, expected in zip(function(kernels), function(REFERENCE), strict=True)
        )
    except Exception:  # a kernel that does not compile must not hide the other results
        return Outcome(what, sizes, name, None, tolerance, traceback.format_exc(limit=-4)[-3000:])
    return Outcome(what, sizes, name, error, tolerance)


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Return the largest error over the largest expected value; infinite if one is not finite."""
    if expected.numel() == 0:
        return 0.0
    result, expected = result.detach().double(), expected.detach().double()
    if not (result.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    return float((result - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def checks(
    all_sizes: tuple[Sizes, ...],
    device: torch.device,
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
    kernels: Kernels | None = None,
) -> Iterator[Outcome]:
    """Run every comparison at every size."""
    kernels = kernels or TritonKernels()
    for dtype in dtypes:
        for sizes in all_sizes:
            for what, function in cases(sizes, device, dtype).items():
                yield compare(what, function, sizes, dtype, TOLERANCE[dtype], kernels)
            for query in ("state", "state+word", None):
                function = whole_recurrence(sizes, device, dtype, query=query)
                what = f"recurrence, query {query}" if query else "recurrence without attention"
                yield compare(what, function, sizes, dtype, RECURRENCE_TOLERANCE[dtype], kernels)


def compile_all(sizes: Sizes, dtype: torch.dtype, capability: int) -> Iterator[Outcome]:
    """Compile all kernels at these sizes for a compute capability, without a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    launched: dict[str, tuple[Any, ...]] = {}

    class Recorder(TritonKernels):
        def _kernel(self, name: str) -> Any:
            function = super()._kernel(name)

            def record(*arguments: Any, num_warps: int, **constants: Any) -> None:
                if name not in launched:
                    launched[name] = (function, arguments, constants, num_warps)

            return _Grid(record)

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
    """Return types, constants and alignments of a launch for Triton's compiler."""
    types: dict[str, str] = {}
    fixed: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    positional = iter(arguments)
    for index, parameter in enumerate(function.params):
        value = constants[parameter.name] if parameter.name in constants else next(positional)
        if parameter.is_constexpr:
            types[parameter.name], fixed[(index,)] = "constexpr", value
        elif isinstance(value, Tensor):
            types[parameter.name] = "*" + _TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            types[parameter.name] = "i32" if isinstance(value, int) else "fp32"
    return types, fixed, attributes


class _Grid:
    """Replaces a kernel and records its launch."""

    def __init__(self, launch: Callable[..., None]) -> None:
        self.launch = launch

    def __getitem__(self, _grid: tuple[int, ...]) -> Callable[..., None]:
        return self.launch


def main(
    device: Annotated[str, typer.Option(help="cpu with TRITON_INTERPRET=1, or cuda")] = "cuda",
    compile_for: Annotated[
        int | None, typer.Option(help="only compile, for this compute capability, 90 for sm_90")
    ] = None,
) -> None:
    """Print one JSON record per comparison."""
    if compile_for is None:
        # Small tiles, so that these sizes need several.
        outcomes = checks(SMALL, torch.device(device), kernels=TritonKernels(tile=256))
    else:
        outcomes = compile_all(TYPICAL, torch.bfloat16, compile_for)
    passed = True
    for outcome in outcomes:
        print(json.dumps(outcome.record()), flush=True)
        passed &= outcome.passed
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
