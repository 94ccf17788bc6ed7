"""Methods of a detector that are implemented outside of `models`: deployment, saving and loading.

Users look for `deploy`, `save_pretrained` and `from_pretrained` on the detector. Models import nothing from the
packages above them, so these methods call functions that `detectors/__init__.py` passes to `implement`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from detectors.models.detector import Detector

T = TypeVar("T", bound="DetectorMethods")


class DetectorMethods(  # type: ignore[call-arg]
    nn.Module, PyTorchModelHubMixin, library_name="feature-pyramids", tags=["object-detection"]
):
    """`deploy`, `save_pretrained`, `from_pretrained` and `push_to_hub` of a detector.

    `config` holds the arguments of `create_detector` that built the detector, but for those that JSON cannot hold,
    whose names are in `opaque_settings`; a detector assembled by hand has no config and can only be saved as a state
    dict.
    """

    config: dict[str, Any] | None = None
    opaque_settings: tuple[str, ...] = ()

    _deploy: ClassVar[Callable[..., Detector]]
    _describe: ClassVar[Callable[..., dict[str, Any]]]
    _write: ClassVar[Callable[..., None]]
    _open: ClassVar[Callable[..., Any]]
    _make_card: ClassVar[Callable[..., ModelCard]]
    _copy_picture: ClassVar[Callable[..., None]]

    @classmethod
    def implement(
        cls,
        *,
        deploy: Callable[..., Detector],
        describe: Callable[..., dict[str, Any]],
        write: Callable[..., None],
        open: Callable[..., Any],
        card: Callable[..., ModelCard],
        picture: Callable[..., None],
    ) -> None:
        """Set the functions that the methods call."""
        cls._deploy, cls._describe = staticmethod(deploy), staticmethod(describe)
        cls._write, cls._open = staticmethod(write), staticmethod(open)
        cls._make_card, cls._copy_picture = staticmethod(card), staticmethod(picture)

    def deploy(
        self,
        *,
        engine: Literal["torch", "openvino"] = "torch",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        network: str | os.PathLike[str] | None = None,
    ) -> Detector:
        """A copy for inference only, with the same contract and numbers.

        Args:
            engine: `"torch"`: batch norms folded, channels-last, see `DeployedDetector`. `"openvino"`: the network in
                OpenVINO on the CPU, which is the faster for small networks; see `OpenVINODetector`.
            dtype: precision of the network.
            compile: compile it, with the engine torch.
            network: a file that `export_openvino` wrote, for the engine openvino.

        Raises:
            ValueError: for another engine, an argument of the other one, or another dtype.
        """
        return self._deploy(self, engine=engine, dtype=dtype, compile=compile, network=network)

    def save_pretrained(
        self, save_directory: str | Path, *, model_card_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> str | None:
        """Write weights, config and a model card to a folder; a card that is there already stays as it is.

        Args:
            save_directory: the folder; made if it is missing.
            model_card_kwargs: what the card says beyond the detector itself: `license`, `data`, `report`, `picture`,
                `run`, `name`, as of `detectors.card.model_card`.
            **kwargs: further arguments of `huggingface_hub`'s mixin.

        Raises:
            FileNotFoundError: if the card's picture, report or run is missing.
            ValueError: for a detector that no config can rebuild, or a report of other classes; says why.
        """
        about = dict(model_card_kwargs or {})
        self._describe(self)  # raises before the folder is touched, as the card does
        self._make_card(self, **about)
        self._copy_picture(save_directory, about.get("picture"), about.get("run"))
        url: str | None = super().save_pretrained(save_directory, model_card_kwargs=about, **kwargs)
        return url

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> str:
        """Upload weights, config and a model card to a repository of the Hub; see `save_pretrained`.

        Args:
            repo_id: `owner/name`; made if it is missing.
            model_card_kwargs: as of `save_pretrained`.
            **kwargs: further arguments of `huggingface_hub`'s mixin, such as `private`, `token` and `branch`.
        """
        about = {"name": repo_id, **(model_card_kwargs or {})}
        url: str = super().push_to_hub(repo_id, model_card_kwargs=about, **kwargs)
        return url

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that the mixin writes; see `detectors.card.model_card`."""
        return self._make_card(self, **kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(self, save_directory)

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
        detector: T = cls._open(pretrained_model_name_or_path, cls, **kwargs)
        return detector
