"""Errors of backbones: each names what is wrong, and a name or a size that would do."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from own_backbones import Maps
from torch import nn

from pyramids import attach
from pyramids.source import candidate_sizes


class TestErrors:
    def test_unknown_name_suggests(self) -> None:
        with pytest.raises(ValueError, match=r"no model named 'resnt50'; did you mean .*'resnet50'"):
            attach("resnt50", "mlfpn")

    def test_unknown_neck_suggests(self) -> None:
        with pytest.raises(ValueError, match="mlfpn"):
            attach("resnet18", "mlfp")

    def test_neither_name_nor_module(self) -> None:
        with pytest.raises(TypeError, match="name of a timm model or a module: got 3"):
            attach(3, "mlfpn")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="got 3"):
            attach("resnet18", 3)  # type: ignore[arg-type]

    def test_no_spatial_maps(self) -> None:
        with pytest.raises(ValueError, match=r"Linear has no feature_info .* pass the name of a timm model"):
            attach(nn.Linear(3, 3), "mlfpn")

    def test_size_that_the_model_does_not_take(self) -> None:
        with pytest.raises(ValueError, match=r"nest_tiny.* 320x512 .*nearest size found that it takes is 448x448"):
            attach("nest_tiny", "mlfpn", image_size=(320, 512))

    def test_output_stride_that_the_model_lacks(self) -> None:
        with pytest.raises(ValueError, match=r"timm does not build 'vgg11' with .*output_stride"):
            attach("vgg11", "mlfpn", output_stride=16)
        with pytest.raises(ValueError, match="output_stride"):
            attach("pvt_v2_b0", "mlfpn", output_stride=16)

    @pytest.mark.parametrize("channels", [0, -1, "x", 2.5])
    def test_numbers_of_channels_that_cannot_be(self, channels: Any) -> None:
        with pytest.raises(ValueError, match=rf"in_chans is a positive number of channels: got {channels!r}"):
            attach("test_resnet", "fpn", backbone_kwargs={"in_chans": channels})

    def test_arguments_of_names_for_a_module(self) -> None:
        with pytest.raises(ValueError, match="built already"):
            attach(Maps([4, 8], [8, 16]), "mlfpn", pretrained=True)

    def test_weights_that_cannot_be_loaded_say_so_whole(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
            attach("resnet10t", "fpn", backbone_kwargs={"checkpoint_path": str(tmp_path / "nowhere.pth")})
        torch.save({"first.weight": torch.zeros(1), "last.weight": torch.zeros(1)}, tmp_path / "other.pth")
        whole = r"(?s)other\.pth .*'resnet10t'.*Missing key.*conv1.*Unexpected key.*first\.weight.*last\.weight"
        with pytest.raises(ValueError, match=whole):
            attach("resnet10t", "fpn", image_size=64, backbone_kwargs={"checkpoint_path": str(tmp_path / "other.pth")})

    @pytest.mark.parametrize("content", [b"hello", b"", b"PK\3\4 cut off"])
    def test_a_file_that_is_no_checkpoint_is_named(self, content: bytes, tmp_path: Path) -> None:
        file = tmp_path / "junk.pth"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"junk\.pth cannot be loaded into 'resnet10t'"):
            attach("resnet10t", "fpn", backbone_kwargs={"checkpoint_path": str(file)})

    def test_arguments_that_a_model_lacks_are_no_matter_of_the_size(self) -> None:
        for size in (None, 224):
            with pytest.raises(ValueError, match="unexpected keyword argument 'drop_paths'") as caught:
                attach("swin_tiny_patch4_window7_224", "fpn", image_size=size, backbone_kwargs={"drop_paths": 0.1})
            assert "size" not in str(caught.value).replace("img_size", "")

    def test_an_error_of_several_lines_is_told_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> nn.Module:
            raise RuntimeError("first line\nsecond line")

        monkeypatch.setattr(timm, "create_model", refuse)
        with pytest.raises(ValueError, match="first line\nsecond line"):
            attach("resnet18", "fpn")

    def test_img_size_has_one_place(self) -> None:
        with pytest.raises(ValueError, match="image_size"):
            attach("resnet18", "mlfpn", backbone_kwargs={"img_size": 224})

    @pytest.mark.parametrize("own", [{"pretrained": False}, {"features_only": False}, {"out_indices": (1, 2)}])
    def test_what_attach_sets_has_one_place(self, own: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"backbone_kwargs has .*{next(iter(own))}.*which attach sets itself"):
            attach("resnet18", "mlfpn", backbone_kwargs=own)

    @pytest.mark.parametrize("strides", [(), (16, 8), (8, 8), (0, 8), (8.0, 16)])
    def test_strides(self, strides: Any) -> None:
        with pytest.raises(ValueError, match="strides"):
            attach("resnet18", "mlfpn", strides=strides)

    @pytest.mark.parametrize("size", ["320", (320,), (0, 320), (320.0, 320), 0, True, 320.0])
    def test_image_size(self, size: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="image_size"):
            attach("resnet18", "mlfpn", image_size=size)


def test_candidate_sizes_are_near_and_plenty() -> None:
    sizes = candidate_sizes((320, 512), 32, (240, 240))
    assert sizes[0] == (320, 512)
    assert (360, 480) in sizes
    assert (384, 384) in sizes
    assert (240, 240) in sizes
