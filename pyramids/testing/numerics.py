"""Clauses on the numbers: the same again, the same alone, in other layouts and precisions, and NaN as NaN."""

import torch
from torch import nn

from ..neck import Size
from .strategies import for_all_sizes
from .subject import expect, expect_close, fresh, infer, make_maps, other_sizes, usual_sizes

REORDERED = 1e-4  # float32 sums taken in another order
BF16 = 0.15  # bf16 has 8 bits, and a neck of a hundred layers adds up their roundings: to 0.09 in eight MLFPNs


def deterministic(neck: nn.Module, examples: int) -> None:
    """The same maps give the same outputs again in evaluation, after maps of other sizes too."""
    subject = fresh(neck)
    maps = make_maps(subject, usual_sizes(subject))
    first = infer(subject, maps)
    infer(subject, make_maps(subject, other_sizes(subject), batch=2, seed=1))
    expect_close(infer(subject, maps), first, REORDERED, "a second pass over the same maps in evaluation")


def batch(neck: nn.Module, examples: int) -> None:
    """A batch in evaluation gives what its images give one by one."""
    subject = fresh(neck)

    def test(sizes: list[Size], batch: int) -> None:
        maps = make_maps(subject, sizes, batch + 1)
        together = infer(subject, maps)
        for i in range(batch + 1):
            alone = infer(subject, [x[i : i + 1] for x in maps])
            part = [x[i : i + 1] for x in together]
            expect_close(part, alone, REORDERED, f"image {i} of a batch of {batch + 1} with input sizes {sizes}")

    for_all_sizes(subject, examples // 10, test)


def channels_last(neck: nn.Module, examples: int) -> None:
    """`channels_last` maps and weights give what contiguous ones give."""
    subject = fresh(neck)
    last = fresh(neck).to(memory_format=torch.channels_last)

    def test(sizes: list[Size], batch: int) -> None:
        maps = make_maps(subject, sizes, batch)
        rearranged = [x.contiguous(memory_format=torch.channels_last) for x in maps]
        what = f"channels_last maps with input sizes {sizes}"
        expect_close(infer(last, rearranged), infer(subject, maps), REORDERED, what)

    for_all_sizes(subject, examples // 10, test)


def autocast(neck: nn.Module, examples: int) -> None:
    """Under bf16 autocast, outputs and gradients are finite and outputs stay close to those in float32."""
    subject = fresh(neck).float()
    maps = make_maps(subject, usual_sizes(subject), batch=2)
    expected = infer(subject, maps)
    with torch.autocast(maps[0].device.type, dtype=torch.bfloat16):
        # By the norm: a single value of a deep neck may be far off.
        expect_close(infer(subject, maps), expected, BF16, "bf16 autocast", order=2)
        expect_close(infer(subject, [x.bfloat16() for x in maps]), expected, BF16, "bf16 maps under autocast", order=2)
    with torch.autocast(maps[0].device.type, dtype=torch.bfloat16):  # anew: inference leaves casts without gradients
        outputs = subject.train()(maps)
    torch.autograd.backward([x.float().square().mean() for x in outputs if x.requires_grad])
    for name, p in subject.named_parameters():
        expect(p.grad is None or bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite under autocast")


def nan(neck: nn.Module, examples: int) -> None:
    """A map of NaN gives NaN in every output that depends on it: nothing hides a broken backbone."""
    subject = fresh(neck)
    sizes = usual_sizes(subject)
    maps, others = make_maps(subject, sizes), make_maps(subject, sizes, seed=1)
    before = infer(subject, maps)
    for i in range(len(maps)):
        after = infer(subject, [*maps[:i], others[i], *maps[i + 1 :]])
        broken = infer(subject, [*maps[:i], torch.full_like(maps[i], torch.nan), *maps[i + 1 :]])
        for j, (old, new, bad) in enumerate(zip(before, after, broken)):
            depends = not torch.equal(old, new)
            expect(not depends or bool(bad.isnan().any()), f"output {j} depends on input map {i} but hides its NaN")
