"""The base class: what it declares and what it refuses."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from timm.models import FeatureInfo
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pyramids import BFP, FPN, MLFPN, Neck, RepGFPN, attach
from pyramids.conv import BatchNormAct2d, conv_norm_act


class Plain(Neck):
    def __init__(self, in_channels=(4, 8), in_strides=(8, 16)):
        super().__init__(in_channels, in_strides)
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 1) for c in in_channels)
        self.declare_outputs(in_channels, in_strides)

    def output_sizes(self, input_sizes):
        if min(input_sizes[0]) < 4:
            raise ValueError("Plain needs 4x4")
        return list(input_sizes)

    def forward(self, features):
        self.check(features)
        return [conv(x) for conv, x in zip(self.convs, features)]


def maps(channels=(4, 8), sizes=(8, 4), batch=2, **kwargs):
    return [torch.rand(batch, c, s, s, **kwargs) for c, s in zip(channels, sizes)]


def test_declares_by_timms_feature_info():
    neck = Plain()
    assert isinstance(neck.feature_info, FeatureInfo)
    assert neck.feature_info.channels() == neck.out_channels == [4, 8]
    assert neck.feature_info.reduction() == neck.out_strides == [8, 16]
    assert neck.default_strides == (8, 16, 32)


def test_feature_info_survives_copies_and_pickles():
    neck = Plain()
    for twin in (copy.deepcopy(neck), pickle.loads(pickle.dumps(neck))):
        assert twin.feature_info.info == neck.feature_info.info
        assert twin.feature_info is not neck.feature_info


@pytest.mark.parametrize(
    ("channels", "strides", "words"),
    [
        ([4, 8], [8], "one stride for each map"),
        ([4, 8], [16, 8], "from fine to coarse"),
        ([4, 8], [8, 8], "from fine to coarse"),
        ([], [], "sequence of positive integers"),
        ([4, 0], [8, 16], "sequence of positive integers"),
        ([4, 8.0], [8, 16], "sequence of positive integers"),
        ([4, True], [8, 16], "sequence of positive integers"),
        ([4, 8], [-8, 16], "in_strides is a sequence of positive integers"),
    ],
)
def test_bad_declaration(channels, strides, words):
    with pytest.raises(ValueError, match=words):
        Neck(channels, strides)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpys_integers_are_integers(kind):
    pyramid = attach(
        "test_resnet",
        "mlfpn",
        strides=(kind(8), kind(16)),
        image_size=kind(64),
        backbone_kwargs={"in_chans": kind(4)},
        num_levels=kind(2),
        num_scales=kind(3),
        channels=kind(8),
        base_channels=(kind(8), kind(8)),
    )
    assert [tuple(x.shape) for x in pyramid(torch.rand(1, 4, 64, 64))] == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2)]
    fpn = FPN([kind(4), kind(8)], [kind(8), kind(16)], out_channels=kind(8))
    for neck in (pyramid.neck, fpn, RepGFPN([4, 4, 4], [8, 16, 32], out_channels=kind(8))):
        assert {type(value) for value in [*neck.out_channels, *neck.out_strides]} == {int}
    assert BFP([4, 4], [8, 16], refine_level=kind(1)).refine_level == 1


@pytest.mark.parametrize("channels", [4, "48", None, {4, 8}])
def test_channels_that_are_no_sequence(channels):
    with pytest.raises(TypeError, match="in_channels is a sequence of positive integers"):
        Neck(channels, [8, 16])


def test_base_class_asks_to_be_completed():
    neck = Neck([4], [8])
    for method in (neck.output_sizes, neck.forward):
        with pytest.raises(NotImplementedError, match="Neck does not define"):
            method([])


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (maps()[:1], "takes 2 maps of .4, 8. channels, finest first: got 1 maps"),
        ([], "got 0 maps"),
        ([*maps(), maps()[0]], "got 3 maps"),
        (maps()[::-1], "map 0 has shape .* where 4 channels were expected; the maps seem to come in reverse order"),
        (maps((4, 9)), "map 1 has shape .2, 9, 4, 4. where 8 channels were expected$"),
        (maps(sizes=(4, 8)), "from fine to coarse: got sizes"),
        ([x[0] for x in maps()], r"map 0 has shape \(4, 8, 8\)"),
        ([maps()[0], maps(batch=3)[1]], "one batch: 2 images in map 0, 3 in map 1"),
        (maps(sizes=(3, 2)), "Plain needs 4x4"),
        ([maps()[0], maps(device="meta")[1]], "Plain is on cpu, but map 1 is on meta"),
    ],
)
def test_maps_that_do_not_fit(features, words):
    with pytest.raises(ValueError, match=words):
        Plain()(features)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.rand(2, 4, 8, 8), "takes a list of feature maps, finest first: got a Tensor"),
        ({"0": maps()[0]}, "got a dict"),
        ([None, None], "floating-point tensors: map 0 is NoneType"),
        ([x.long() for x in maps()], "map 0 is torch.int64"),
        (maps(dtype=torch.float64), "computes in torch.float32, but map 0 is torch.float64; convert or use autocast"),
        (maps(dtype=torch.bfloat16), "computes in torch.float32, but map 0 is torch.bfloat16"),
    ],
)
def test_maps_of_the_wrong_kind(features, words):
    with pytest.raises(TypeError, match=words):
        Plain()(features)


def test_other_dtypes_pass_where_they_work():
    assert Plain().bfloat16()(maps(dtype=torch.bfloat16))[0].dtype == torch.bfloat16
    assert Plain().double()(maps(dtype=torch.float64))[0].dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Plain()(maps(dtype=torch.bfloat16))[0].dtype == torch.bfloat16


def test_on_the_meta_device():
    neck = Plain().to("meta")
    assert [tuple(x.shape) for x in neck(maps(device="meta"))] == [(2, 4, 8, 8), (2, 8, 4, 4)]
    with pytest.raises(TypeError, match=r"computes in torch\.float32, but map 0 is torch\.float16"):
        neck(maps(device="meta", dtype=torch.float16))
    with pytest.raises(ValueError, match="is on meta, but map 0 is on cpu"):
        neck(maps())


@pytest.mark.parametrize("sequence", [tuple, list, torch.nn.ParameterList])
def test_any_sequence_of_maps(sequence):
    if sequence is nn.ParameterList:  # no Sequence by its type
        with pytest.raises(TypeError, match="got a ParameterList"):
            Plain()(sequence(maps()))
    else:
        assert len(Plain()(sequence(maps()))) == 2


def test_single_value_is_normalized_by_the_running_statistics():
    norm = BatchNormAct2d(3, apply_act=False).train()
    with torch.no_grad():
        norm.running_mean += 1
        norm.running_var *= 4
    x = torch.rand(1, 3, 1, 1)
    torch.testing.assert_close(norm(x), (x - 1) / (4 + norm.eps) ** 0.5)
    assert norm.running_mean.tolist() == [1, 1, 1]
    assert norm.num_batches_tracked == 0
    y = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.6, 0.5]]).view(2, 3, 1, 1)  # equal values would leave no variance
    torch.testing.assert_close(norm(y).mean(0), torch.zeros(3, 1, 1), atol=1e-6, rtol=0)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("act_layer", [nn.ReLU, nn.SiLU, None])
@pytest.mark.parametrize("norm_layer", [nn.BatchNorm2d, None])
def test_block_has_the_activation_asked_for(norm_layer, act_layer):
    block = conv_norm_act(3, 4, norm_layer=norm_layer, act_layer=act_layer).eval()
    assert (block.conv.bias is None) == (norm_layer is not None)
    activations = [type(m) for m in block.modules() if isinstance(m, (nn.ReLU, nn.SiLU))]
    assert activations == ([act_layer] if act_layer else [])
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        plain = block.conv(x) if norm_layer is None else block.conv(x) / (1 + 1e-5) ** 0.5
        torch.testing.assert_close(block(x), act_layer()(plain) if act_layer else plain)


def test_trains_under_ddp(tmp_path):
    """Every parameter gets a gradient, so DDP needs no search for unused ones."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        neck = MLFPN([4, 8], num_levels=2, num_scales=3, channels=8, base_channels=(4, 4))
        parallel = DistributedDataParallel(neck)
        for _ in range(2):  # a second step fails where the first left gradients out
            sum(x.square().mean() for x in parallel(maps(sizes=(9, 5)))).backward()
        assert all(p.grad is not None for p in neck.parameters())
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("norm_layer", "message"),
    [
        (functools.partial(nn.GroupNorm, 2), r"has its arguments by keyword: got \(2,\) by position"),
        (functools.partial(nn.BatchNorm2d, 8, 1e-3), r"by keyword: got \(8, 0.001\) by position"),
        (nn.InstanceNorm2d, "norm_layer is one that timm can join with an activation.*InstanceNorm2d"),
        (nn.SyncBatchNorm, "norm_layer is one that timm can join with an activation.*SyncBatchNorm"),
        ("frozenbatchnorm2d", "norm_layer is one that timm can join with an activation.*FrozenBatchNorm2d"),
    ],
)
def test_norms_that_would_be_built_otherwise_are_refused(norm_layer, message):
    with pytest.raises(ValueError, match=message):
        conv_norm_act(4, 8, norm_layer=norm_layer)


def test_keywords_of_a_partial_count():
    block = conv_norm_act(4, 8, norm_layer=functools.partial(nn.GroupNorm, num_groups=2))
    assert block.bn.num_groups == 2
