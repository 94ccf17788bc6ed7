"""The non-local block, embedded Gaussian: every location of a map attends to all.

Paper: `Non-local Neural Networks`, section 3, https://arxiv.org/abs/1711.07971
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act


class NonLocal(nn.Module):
    """Non-local block (Wang et al. 2018, section 3.2, embedded Gaussian): attention over all locations, and a residual.

    Queries, keys and values are 1x1 convolutions as wide as the map, the attention's logits are not scaled, and a 1x1
    convolution follows. At the start it is the identity: the last layer is zero.

    timm's `NonLocalAttn` has a norm in every case and a bias before it.

    Args:
        channels: channels of the map.
        norm_layer: timm-style normalization layer of the last convolution; None means none.

    >>> import torch
    >>> from pyramids.non_local import NonLocal
    >>> x = torch.rand(1, 8, 5, 7)
    >>> torch.equal(NonLocal(8)(x), x)
    True
    """

    def __init__(self, channels: int, *, norm_layer: LayerType | None = None) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels, 1)
        self.phi = nn.Conv2d(channels, channels, 1)
        self.g = nn.Conv2d(channels, channels, 1)
        self.conv_out = conv_norm_act(channels, channels, 1, norm_layer=norm_layer, act_layer=None)
        for conv in (self.theta, self.phi, self.g):
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        for p in self.conv_out.get_submodule("conv" if norm_layer is None else "bn").parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, channels, H, W)` to the same shape."""
        query, key, value = (conv(x).flatten(2).mT.unsqueeze(1) for conv in (self.theta, self.phi, self.g))
        gathered = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # [N, 1, H * W, channels]
        return x + self.conv_out(gathered.squeeze(1).mT.reshape(x.shape))
