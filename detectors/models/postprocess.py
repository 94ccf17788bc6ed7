"""Post-processing of head outputs: score threshold, top candidates per class, NMS, top detections per image.

SSD (arXiv 1512.02325), Sec. 2.1 "Inference", with soft-NMS as in M2Det (arXiv 1811.04533), Sec. 4.2.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from detectors.ops.box_coder import BoxCoder
from detectors.ops.nms import batched_soft_nms, check_limits, check_settings
from detectors.ops.top_k import ordered_top_k

_DEFAULT_IOU_THRESHOLDS = {"linear": 0.3, "gaussian": 0.3, "hard": 0.45}


class PostProcess(nn.Module):
    """Turns head outputs into detections of a fixed number, for eager mode, `torch.compile`, `torch.export` and ONNX.

    Every class keeps its best `candidates_per_class` anchors scoring above `score_threshold`; the others are left
    out without a warning. `nms` then lowers or removes overlapping ones (`detectors.ops.nms`), and the best
    `max_per_image` over all classes stay, at most `max_per_class` of one class (None: no such limit). Candidates whose
    score or box is NaN are dropped. Overlaps are computed in float32 whatever the input's dtype, without host-device
    synchronization.

    `iou_threshold` defaults to 0.3 for soft-NMS and 0.45 for hard. `extra_pixel=True` measures boxes as the authors'
    2019 code does, one pixel wider and higher. `clip` cuts boxes off at the image's border.

    Raises ValueError on a setting out of range.

    >>> postprocess = PostProcess(max_per_image=3)
    >>> anchors = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.36]])
    >>> scores = torch.tensor([[[0.9, 0.0], [0.8, 0.3]]])
    >>> boxes, scores, labels, valid = postprocess(torch.zeros(1, 2, 4), scores, anchors, torch.tensor([[100, 200]]))
    >>> labels.tolist(), valid.tolist()
    ([[1, 2, 1]], [3])
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.05,
        nms: Literal["linear", "gaussian", "hard"] = "linear",
        iou_threshold: float | None = None,
        sigma: float = 0.5,
        min_score: float = 0.001,
        candidates_per_class: int = 400,
        max_per_class: int | None = None,
        max_per_image: int = 200,
        box_coder: BoxCoder | None = None,
        extra_pixel: bool = False,
        clip: bool = True,
    ) -> None:
        super().__init__()
        if iou_threshold is None:
            iou_threshold = _DEFAULT_IOU_THRESHOLDS.get(nms, 0.3)
        check_settings(nms, iou_threshold, sigma, min_score)
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be in 0..1, got {score_threshold}")
        max_per_class = max_per_image if max_per_class is None else max_per_class
        check_limits(
            candidates_per_class=candidates_per_class, max_per_class=max_per_class, max_per_image=max_per_image
        )
        self.score_threshold = score_threshold
        self.nms = nms
        self.iou_threshold = iou_threshold
        self.sigma = sigma
        self.min_score = min_score
        self.candidates_per_class = candidates_per_class
        self.max_per_class = max_per_class
        self.max_per_image = max_per_image
        self.box_coder = box_coder or BoxCoder()
        self.extra_pixel = extra_pixel
        self.clip = clip

    def settings(self) -> dict[str, Any]:
        """The arguments that make this post-processing, without its box coder."""
        return {
            "score_threshold": self.score_threshold,
            "nms": self.nms,
            "iou_threshold": self.iou_threshold,
            "sigma": self.sigma,
            "min_score": self.min_score,
            "candidates_per_class": self.candidates_per_class,
            "max_per_class": self.max_per_class,
            "max_per_image": self.max_per_image,
            "extra_pixel": self.extra_pixel,
            "clip": self.clip,
        }

    def forward(
        self, box_regression: Tensor, scores: Tensor, anchors: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Select the detections of a batch.

        `box_regression` is (N, P, 4), `scores` (N, P, C) of the foreground classes in 0..1, `anchors` (P, 4) in cxcywh
        as fractions, `sizes` (N, 2) the images' heights and widths in pixels. Returns, for K = `max_per_image`, boxes
        float32 (N, K, 4) in absolute xyxy, scores float32 (N, K), labels int64 (N, K) from 1, and valid int64 (N,), how
        many of the K are detections; the rest is zero.

        Raises ValueError if the shapes do not fit.
        """
        self._check(box_regression, scores, anchors, sizes)
        return self.select(self.box_coder.decode(box_regression.float(), anchors.float()), scores, sizes)

    def select(self, boxes: Tensor, scores: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `forward`, from boxes that are decoded already: `boxes` is (N, P, 4) in xyxy as fractions."""
        scale = sizes.flip(-1).float().repeat(1, 2)[:, None]  # [N, 1, 4]: width, height, width, height
        boxes = boxes * scale
        if self.clip:
            boxes = boxes.clamp(min=0).minimum(scale)
        scores = scores.float().transpose(1, 2)  # [N, C, P]
        count = min(self.candidates_per_class, scores.shape[2])
        scores, candidate = ordered_top_k(scores, count, self.score_threshold)  # [N, C, M]
        boxes = boxes.gather(1, candidate.flatten(1)[..., None].expand(-1, -1, 4)).unflatten(1, candidate.shape[1:])
        # A shift of the far corner widens every box for the overlaps alone.
        shift = (torch.arange(4, device=boxes.device) > 1).float() if self.extra_pixel else None
        boxes, scores, labels, valid = batched_soft_nms(
            boxes if shift is None else boxes + shift,
            scores,
            method=self.nms,
            iou_threshold=self.iou_threshold,
            sigma=self.sigma,
            min_score=self.min_score,
            max_per_class=self.max_per_class,
            max_per_image=self.max_per_image,
        )
        if shift is not None:
            boxes = boxes - shift * (labels > 0)[..., None]
        return boxes, scores, labels, valid

    def extra_repr(self) -> str:
        return (
            f"score_threshold={self.score_threshold}, nms={self.nms!r}, iou_threshold={self.iou_threshold}, "
            f"max_per_image={self.max_per_image}"
        )

    @staticmethod
    def _check(box_regression: Tensor, scores: Tensor, anchors: Tensor, sizes: Tensor) -> None:
        images, count = box_regression.shape[0], anchors.shape[0]
        if (
            box_regression.shape != (images, count, 4)
            or scores.ndim != 3
            or scores.shape[:2] != (images, count)
            or anchors.shape != (count, 4)
            or sizes.shape != (images, 2)
        ):
            raise ValueError(
                "expected box_regression (N, P, 4), scores (N, P, C), anchors (P, 4) and sizes (N, 2), got "
                f"{tuple(box_regression.shape)}, {tuple(scores.shape)}, {tuple(anchors.shape)} and {tuple(sizes.shape)}"
            )


def as_detections(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor) -> list[dict[str, Tensor]]:
    """Split a fixed-size result (N, K, ...) into torchvision's list of `{boxes, labels, scores}`, one per image.

    Waits for the device once, to read how many detections each image has.

    >>> detections = as_detections(torch.zeros(1, 3, 4), torch.zeros(1, 3), torch.ones(1, 3).long(), torch.tensor([2]))
    >>> detections[0]["labels"].tolist()
    [1, 1]
    """
    return [
        {"boxes": boxes[image, :count], "labels": labels[image, :count], "scores": scores[image, :count]}
        for image, count in enumerate(valid.tolist())
    ]
