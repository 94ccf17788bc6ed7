"""Methods of a detector whose code stands above the models: deployment, saving and loading.

Users look for `deploy`, `save_pretrained` and `from_pretrained` on the detector. A model imports nothing that stands
above it, so these methods call functions that `detectors/__init__.py` hands down.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from detectors.models.detector import Detector

T = TypeVar("T", bound="DetectorMethods")


class DetectorMethods(  # type: ignore[call-arg]
    nn.Module, PyTorchModelHubMixin, library_name="feature-pyramids", tags=["object-detection"]
):
    """`deploy`, `save_pretrained`, `from_pretrained` and `push_to_hub` of a detector.

    `config` holds the arguments of `create_detector` that built the detector; one put together by hand has none, and
    can be saved by its state dict only.
    """

    config: dict[str, Any] | None = None

    _deployed: ClassVar[Callable[..., Detector]]
    _described: ClassVar[Callable[..., dict[str, Any]]]
    _written: ClassVar[Callable[..., None]]
    _opened: ClassVar[Callable[..., Any]]

    @classmethod
    def implement(
        cls,
        *,
        deploy: Callable[..., Detector],
        describe: Callable[..., dict[str, Any]],
        write: Callable[..., None],
        open: Callable[..., Any],
    ) -> None:
        """Hand down the functions that the methods call."""
        cls._deployed, cls._described = staticmethod(deploy), staticmethod(describe)
        cls._written, cls._opened = staticmethod(write), staticmethod(open)

    def deploy(self, *, dtype: torch.dtype = torch.float32, compile: bool = False) -> Detector:
        """A copy for inference: batch norms folded, channels-last, in `dtype`; optionally compiled.

        See `DeployedDetector` for arguments and errors.
        """
        return self._deployed(self, dtype=dtype, compile=compile)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write weights, config and a model card to a folder; the arguments are those of `huggingface_hub`'s mixin.

        Raises:
            ValueError: for a detector that no config can rebuild; says what stands against it.
        """
        self._described(self)  # refuses before the folder is touched
        url: str | None = super().save_pretrained(save_directory, **kwargs)
        return url

    def _save_pretrained(self, save_directory: Path) -> None:
        self._written(self, save_directory)

    @classmethod
    def from_pretrained(cls: type[T], pretrained_model_name_or_path: str | Path, **kwargs: Any) -> T:
        """A detector of this class from a saved folder or a repository of the Hub, in evaluation mode.

        Args:
            pretrained_model_name_or_path: the folder or the repository's name.
            **kwargs: `map_location`, and `revision`, `cache_dir`, `force_download`, `local_files_only` and `token` of
                `huggingface_hub`.

        Raises:
            FileNotFoundError: if the folder or the weights are missing.
            TypeError: if the folder holds a detector of another class, or for a setting of the detector: those are
                saved with it.
            ValueError: if the config or the weights are damaged.
        """
        detector: T = cls._opened(pretrained_model_name_or_path, cls, **kwargs)
        return detector
