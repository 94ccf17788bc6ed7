"""3x3 convolutions with less arithmetic, for inference on the CPU.

Winograd's minimal filtering as Lavin & Gray have it ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
arXiv 1509.09308): a tile of `m` x `m` outputs costs (m + 2)² multiplications a channel in place of 9 m². That is 4
times fewer for m = 4, which float32 can bear, and 2.25 times fewer for m = 2, which bfloat16 can bear. cuDNN does so by
itself; oneDNN, which computes torch's convolutions on the CPU, does not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packing import can_pack
from .surgery import Shape, conv_inputs, replace_modules

# Section 4.1, F(2x2, 3x3), and section 4.3, F(4x4, 3x3): transforms of inputs (B^T), filters (G) and outputs (A^T).
_TRANSFORMS: dict[int, tuple[list[list[float]], list[list[float]], list[list[float]]]] = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}
_TILES = {torch.float32: 4, torch.bfloat16: 2}
# With fewer channels or smaller maps moving the tiles costs what the arithmetic saves.
_LEAST_CHANNELS = 256
_LEAST_SIDE = 20


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 and padding 1, for inference: `(N, C, H, W)` to `(N, C', H, W)`, any H and W.

    Equal to the convolution up to rounding: to about 1e-5 of its largest output in float32 at tile 4, to twice the
    convolution's own rounding in bfloat16 at tile 2. It takes 4 times (tile 4) or 1.8 times (tile 2) the memory for
    weights. A value that is not finite spoils its whole tile.

    Args:
        conv: the convolution.
        tile: side of a tile of outputs in cells, 2 or 4.

    >>> conv = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    >>> x = torch.rand(1, 8, 7, 5)
    >>> torch.allclose(WinogradConv2d(conv, tile=4)(x), conv(x), atol=1e-4)
    True
    """

    weight: Tensor
    bias: Tensor
    to_tiles: Tensor
    from_tiles: Tensor

    def __init__(self, conv: nn.Conv2d, tile: int) -> None:
        super().__init__()
        self.tile = tile
        inputs, filters, outputs = (torch.tensor(t, dtype=torch.float64) for t in _TRANSFORMS[tile])
        kernel = conv.weight.detach().double()
        weight = torch.einsum("ai,ocij,bj->abco", filters, kernel, filters).flatten(0, 1)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        # The transforms of rows and of columns as one matrix.
        tensors = {
            "weight": weight,
            "bias": bias,
            "to_tiles": torch.kron(inputs, inputs),
            "from_tiles": torch.kron(outputs, outputs),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.to(conv.weight.dtype).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's, channels-last."""
        n, channels, height, width = x.shape
        side = self.tile + 2  # of the inputs that a tile reads
        rows, columns = -(-height // self.tile), -(-width // self.tile)
        frame = (0, 0, 1, columns * self.tile + 1 - width, 1, rows * self.tile + 1 - height)
        padded = F.pad(x.permute(0, 2, 3, 1), frame)
        patches = padded.unfold(1, side, self.tile).unfold(2, side, self.tile)  # [n, rows, columns, C, side, side]
        patches = patches.permute(4, 5, 0, 1, 2, 3).reshape(side * side, -1)
        tiles = torch.mm(self.to_tiles, patches).view(side * side, -1, channels)
        products = torch.bmm(tiles, self.weight).view(side * side, -1)
        y = torch.mm(self.from_tiles, products).view(self.tile, self.tile, n, rows, columns, -1)
        y = y.permute(2, 3, 0, 4, 1, 5).reshape(n, rows * self.tile, columns * self.tile, -1)
        y = (y[:, :height, :width] + self.bias).permute(0, 3, 1, 2)
        return y.contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[2]}, tile={self.tile}"


def pays(conv: nn.Conv2d, shape: Shape) -> bool:
    """Whether a convolution has a Winograd form, and an input wide and large enough for it to be faster."""
    form = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    wide = min(conv.in_channels, conv.out_channels) >= _LEAST_CHANNELS
    return form == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and wide and min(shape[2:]) >= _LEAST_SIDE


def use_winograd(module: nn.Module, dtype: torch.dtype, *inputs: object) -> int:
    """Replace the convolutions of `module(*inputs)` for which it pays on the CPU, in place; returns how many."""
    if not can_pack(torch.device("cpu"), dtype):
        return 0
    shapes = conv_inputs(module, *inputs)
    new: dict[nn.Module, nn.Module] = {
        conv: WinogradConv2d(conv, _TILES[dtype]) for conv, shape in shapes.items() if pays(conv, shape)
    }
    replace_modules(module, new)
    return len(new)
