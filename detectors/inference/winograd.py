"""3x3 convolutions with less arithmetic, for inference on the CPU.

Winograd's minimal filtering as Lavin & Gray have it ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
arXiv 1509.09308), F(4x4, 3x3): a tile of 4 x 4 outputs costs 36 multiplications per channel in place of 144. cuDNN uses
it by itself; oneDNN, which computes torch's convolutions on the CPU, does not. The network of M2Det-320 with VGG-16 in
the authors' design takes 0.55 of its time with it on one thread (1511 to 861 ms) and 0.57 on two (839 to 472 ms), in
float32 with AVX-512; 0.62 on two held to AVX2. The products are a 1x1 convolution of 36 groups, whose weights `packing`
packs: 1.05 to 1.7 times as fast as `torch.bmm` on these layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.inference.packing import can_pack
from detectors.inference.surgery import Shape, conv_inputs, is_plain_3x3, replace_modules

_TILE = 4  # side of a tile of outputs
_PATCH = _TILE + 2  # side of the inputs that a tile reads
# Points at which polynomials are evaluated, besides infinity. The rounding error depends on them (Barabasz et al.,
# "Error Analysis and Improving the Accuracy of Winograd Convolution", arXiv 1803.10986): with the usual 0, 1, -1, 2 and
# -2 the largest error in bfloat16 is 4 times that of these.
_POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)
# With fewer channels or smaller maps the transforms cost what the products save: shares of a packed convolution's time,
# in float32 with AVX-512, are 0.80 for 128 to 128 channels at 160x160 and 0.98 at 20x20, 1.11 for 64 to 128 at 160x160
# and 1.08 for 512 to 512 at 10x10.
_MIN_CHANNELS = 128  # of input and of output
_MIN_SIDE = 20
# Output channels are computed in multiples of this, by which oneDNN blocks them.
_ALIGNMENT = 16


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 and padding 1, for inference: `(N, C, H, W)` to `(N, C', H, W)`, any H and W.

    Equal to the convolution up to rounding: to about 3e-6 of its largest output in float32, to about 3e-2 in bfloat16,
    ten times the convolution's own rounding there. It takes about 4 times the memory for weights. A value that is not
    finite spoils the tiles that read it, up to four. It is fast once `pack_convolutions` has packed its products.

    >>> conv = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    >>> x = torch.rand(1, 8, 7, 5)
    >>> torch.allclose(WinogradConv2d(conv)(x), conv(x), atol=1e-4)
    True
    """

    bias: Tensor
    to_tiles: Tensor
    from_tiles: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # B^T, G and A^T of section 4, for one axis.
        inputs, filters, outputs = torch.linalg.inv(_powers(_PATCH)).T, _powers(3), _powers(_TILE).T
        kernel = F.pad(conv.weight.detach().double(), (0, 0, 0, 0, 0, 0, 0, -conv.out_channels % _ALIGNMENT))
        weight = torch.einsum("ai,ocij,bj->aboc", filters, kernel, filters).flatten(0, 2)[..., None, None]
        # For each of a tile's numbers a product of matrices, from all inputs' to all outputs' channels.
        channels = (_PATCH**2 * conv.in_channels, len(weight))
        self.products = nn.Conv2d(*channels, 1, groups=_PATCH**2, bias=False, device="meta")  # draws no random numbers
        self.products.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        # The transforms of rows and of columns as one matrix.
        tensors = {
            "bias": bias,
            "to_tiles": torch.kron(inputs, inputs),
            "from_tiles": torch.kron(outputs, outputs),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.to(conv.weight.dtype).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's, channels-last."""
        n, channels, height, width = x.shape
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        frame = (0, 0, 1, columns * _TILE + 1 - width, 1, rows * _TILE + 1 - height)
        padded = F.pad(x.permute(0, 2, 3, 1), frame)
        patches = padded.unfold(1, _PATCH, _TILE).unfold(2, _PATCH, _TILE)  # [n, rows, columns, C, _PATCH, _PATCH]
        patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, _PATCH**2, channels)
        tiles = torch.bmm(self.to_tiles.expand(len(patches), -1, -1), patches)
        # As one image, channels-last: a row per tile.
        products = self.products(tiles.view(1, len(tiles), 1, -1).permute(0, 3, 1, 2))
        products = products.permute(0, 2, 3, 1).reshape(len(tiles), _PATCH**2, -1)
        y = torch.bmm(self.from_tiles.expand(len(tiles), -1, -1), products)
        y = y.view(n, rows, columns, _TILE, _TILE, -1)[..., : len(self.bias)]
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(n, rows * _TILE, columns * _TILE, -1)
        y = y.add_(self.bias)[:, :height, :width].permute(0, 3, 1, 2)
        return y.contiguous(memory_format=torch.channels_last)


def _powers(count: int) -> Tensor:
    """The first powers of every point and of infinity, float64 (_PATCH, count)."""
    finite = torch.tensor(_POINTS, dtype=torch.float64)[:, None] ** torch.arange(count)
    return torch.cat([finite, torch.eye(count, dtype=torch.float64)[-1:]])


def is_faster(conv: nn.Conv2d, shape: Shape) -> bool:
    """Whether a convolution has a Winograd form, and an input wide and large enough for it to be faster."""
    wide = min(conv.in_channels, conv.out_channels) >= _MIN_CHANNELS
    return is_plain_3x3(conv) and wide and min(shape[2:]) >= _MIN_SIDE


def use_winograd(module: nn.Module, dtype: torch.dtype, *inputs: object) -> int:
    """Replace the convolutions of `module(*inputs)` that are faster in this form, in place; returns their number."""
    if not can_pack(dtype):
        return 0
    new: dict[nn.Module, nn.Module] = {
        conv: WinogradConv2d(conv) for conv, shape in conv_inputs(module, *inputs).items() if is_faster(conv, shape)
    }
    replace_modules(module, new)
    return len(new)
