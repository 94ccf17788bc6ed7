"""Clauses on training: it works at batch 1, and gradients reach every parameter."""

import torch
from torch import Tensor, nn

from ..neck import Size
from .strategies import for_all_sizes
from .subject import as_maps, expect, fresh, infer, make_maps, smallest_sizes, usual_sizes

ATTEMPTS = 16  # a unit behind a ReLU is dead at half of all weights: 16 draws leave one time in 65,000


def trains(neck: nn.Module, examples: int) -> None:
    """It trains at any size and batch, one image with the smallest maps included, and stays finite."""

    def test(sizes: list[Size], batch: int) -> None:
        subject = fresh(neck).train()
        given = f"for a batch of {batch} with input sizes {sizes}"
        maps = make_maps(subject, sizes, batch)
        parameters = [p for p in subject.parameters() if p.requires_grad]
        try:
            loss = _loss(as_maps(subject(maps)))
            if parameters:
                loss.backward()
                # As trainers do: through batch norms over a few cells, sound gradients are large at times.
                torch.nn.utils.clip_grad_norm_(parameters, max_norm=1.0)
                torch.optim.SGD(parameters, lr=1e-3).step()
        except Exception as error:
            raise AssertionError(f"a training step raised {type(error).__name__} {given}: {error}") from error
        expect(bool(loss.isfinite()), f"the outputs in training are not finite {given}")
        for name, value in subject.state_dict().items():
            expect(bool(value.isfinite().all()), f"{name} is not finite after a training step {given}")
        good = all(x.isfinite().all() for x in infer(subject.eval(), maps))
        expect(good, f"the outputs in evaluation are not finite after a training step {given}")

    test(smallest_sizes(neck), 1)
    for_all_sizes(neck, examples // 10, test)


def gradients(neck: nn.Module, examples: int) -> None:
    """Gradients reach every parameter that asks for them, and every input map."""
    subject = fresh(neck).train()
    sizes = usual_sizes(subject)
    waiting = {name for name, p in subject.named_parameters() if p.requires_grad}
    waiting |= {f"input map {i}" for i in range(len(sizes))}
    generator = torch.Generator().manual_seed(0)
    for attempt in range(ATTEMPTS):
        maps = [x.requires_grad_() for x in make_maps(subject, sizes, batch=2, seed=attempt)]
        subject.zero_grad()
        _loss(as_maps(subject(maps))).backward()
        leaves: list[tuple[str, Tensor]] = [*subject.named_parameters()]
        leaves += [(f"input map {i}", x) for i, x in enumerate(maps)]
        waiting -= {name for name, x in leaves if x.grad is not None and bool(x.grad.any())}
        if not waiting:
            return
        # Other weights wake a unit that was dead by chance.
        with torch.no_grad():
            for p in subject.parameters():
                spread = p.square().mean().sqrt().clamp(min=0.1)
                p += spread * torch.randn(p.shape, generator=generator).to(p)
    raise AssertionError(f"no gradient reaches {', '.join(sorted(waiting))}")


def _loss(maps: list[Tensor]) -> Tensor:
    # Weighted by a ramp: the plain sum of a batch-normalized map has no gradient.
    total = maps[0].new_zeros(())
    for x in maps:
        ramp = torch.linspace(-1, 1, x.numel(), device=x.device, dtype=x.dtype).view(x.shape)
        total = total + (x * ramp).mean() + x.square().mean()
    return total
