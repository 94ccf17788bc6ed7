"""Saving and loading of detectors: safetensors beside a JSON config, in a folder or on the Hugging Face Hub."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download
from safetensors.torch import load_file, save_file
from torch import nn

T = TypeVar("T", bound="HubDetector")

_LOADING = {"map_location", "revision", "cache_dir", "force_download", "local_files_only", "token"}


class HubDetector(  # type: ignore[call-arg]
    nn.Module, PyTorchModelHubMixin, library_name="feature-pyramids", tags=["object-detection"]
):
    """A module with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    `config` holds the arguments of `create_detector` that build the module again; a detector put together by hand has
    none and cannot be saved this way, only by its state dict.
    """

    config: dict[str, Any] | None = None
    class_names: list[str] | None = None

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.config is None:
            raise ValueError(
                "this detector was not built by create_detector from plain values, so no config can rebuild it: "
                "save its state_dict() instead"
            )
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        # Names may have been set after the detector was built.
        names = {} if self.class_names is None else {"class_names": list(self.class_names)}
        config = json.dumps({"detector": {**self.config, **names}}, indent=2)
        # Each file is whole before it takes its name.
        partial = save_directory / f".{constants.SAFETENSORS_SINGLE_FILE}.partial"
        save_file(weights, partial, metadata={"format": "pt"})
        os.replace(partial, save_directory / constants.SAFETENSORS_SINGLE_FILE)
        partial = save_directory / f".{constants.CONFIG_NAME}.partial"
        partial.write_text(config)
        os.replace(partial, save_directory / constants.CONFIG_NAME)

    @classmethod
    def from_pretrained(cls: type[T], pretrained_model_name_or_path: str | Path, **kwargs: Any) -> T:
        """A detector from a folder of `save_pretrained` or a repository of the Hub, in evaluation mode.

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
        unknown = sorted(kwargs.keys() - _LOADING)
        if unknown:
            raise TypeError(f"from_pretrained takes no {unknown}: expected any of {sorted(_LOADING)}")
        path = pretrained_model_name_or_path
        if (isinstance(path, Path) or os.path.isabs(path)) and not os.path.isdir(path):
            raise FileNotFoundError(f"no folder {path}")
        try:
            model: T = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except json.JSONDecodeError as error:
            raise ValueError(f"the config.json of {pretrained_model_name_or_path} is no JSON: {error}") from error
        return model

    @classmethod
    def _from_pretrained(
        cls: type[T],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        config: dict[str, Any] | None = None,
        **unused: Any,
    ) -> T:
        from detectors.models.zoo import create_detector

        if not config or "detector" not in config:
            raise ValueError(f"{model_id} holds no config.json of a detector: expected a folder of save_pretrained")
        if os.path.isdir(model_id):
            file = os.path.join(model_id, constants.SAFETENSORS_SINGLE_FILE)
        else:
            file = hf_hub_download(
                model_id,
                constants.SAFETENSORS_SINGLE_FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        model = create_detector(**config["detector"])
        if not isinstance(model, cls):
            raise TypeError(f"{model_id} holds an {type(model).__name__}: load it with {type(model).__name__}")
        load_weights(model, file)
        return model.to(map_location).eval()


def load_weights(model: nn.Module, file: str | Path) -> None:
    """Load a safetensors file into a model, all or nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or made for a model of other keys or shapes; says which.
    """
    if not os.path.exists(file):
        raise FileNotFoundError(f"no weights at {file}")
    try:
        weights = load_file(file)
    except Exception as error:
        raise ValueError(f"{file} is no whole safetensors file: {error}") from error
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != given:
        missing = sorted(set(expected) - set(given))
        surplus = sorted(set(given) - set(expected))
        shapes = [f"{n}: {given[n]} for {expected[n]}" for n in sorted(expected.keys() & given.keys())]
        other = [text for text, n in zip(shapes, sorted(expected.keys() & given.keys())) if given[n] != expected[n]]
        raise ValueError(
            f"{file} does not fit this {type(model).__name__}: {len(missing)} keys are missing {missing[:3]}, "
            f"{len(surplus)} are unknown {surplus[:3]}, {len(other)} have another shape {other[:3]}"
        )
    model.load_state_dict(weights)
