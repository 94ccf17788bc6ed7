"""The model card of a detector on the Hugging Face Hub: classes, data, average precision, how to load it, licence."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from detectors.errors import InputError
from detectors.models.ssd import SSD

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def model_card(
    model: SSD,
    *,
    name: str | None = None,
    license: str | None = None,
    data: str | None = None,
    report: Mapping[str, Any] | str | Path | None = None,
    picture: str | Path | None = None,
    run: str | Path | None = None,
) -> ModelCard:
    """The card that `save_pretrained` and `push_to_hub` write as `README.md`; unknown facts are marked as such.

    Args:
        model: the detector.
        name: of its repository on the Hub, `owner/name`.
        license: of the weights, by its identifier on the Hub, such as `apache-2.0`.
        data: what it was trained on, in Markdown; by default the name of the run's data.
        report: COCO's figures in 0..1, as `evaluate` gives them or `eval --json` writes them; by default those of the
            run's best evaluation.
        picture: an image file of its detections; by default the run's. `copy_picture` puts it beside the card.
        run: the folder of its training run.

    Raises:
        FileNotFoundError: if a file or the run is missing.
        InputError: for a report without AP, or one of other classes; for a file that is not valid JSON.

    >>> from detectors import create_detector
    >>> model = create_detector("ssd", 3, backbone="resnet18", neck="fpn", image_size=64, class_names=["cat", "dog"])
    >>> card = model_card(model, name="me/pets", license="mit")
    >>> card.data.license, card.data.pipeline_tag
    ('mit', 'object-detection')
    >>> 'load("me/pets")' in card.text
    True
    """
    figures = _figures(model, report, run)
    about = data or (None if run is None else _trained_on(Path(run)))
    kind = model.config["name"] if model.config else type(model).__name__
    results = None
    if figures is not None:
        split = str(figures.get("split", "unknown"))
        metric = {"metric_type": "mean_average_precision", "metric_name": "AP", "metric_value": round(figures["AP"], 4)}
        results = [EvalResult(task_type="object-detection", dataset_type="custom", dataset_name=split, **metric)]
    metadata = ModelCardData(
        license=license,
        library_name="feature-pyramids",
        pipeline_tag="object-detection",
        tags=["object-detection", "feature-pyramids"],
        model_name=name or kind,
        eval_results=results,
    )
    parts = [f"# {name or kind}", _summary(model, kind)]
    image = _picture(picture, run)
    if image is not None:
        caption = "Detections" if picture is not None else "Detections to the left, ground truth to the right"
        parts.append(f"![{caption}]({_beside(image)})\n\n*{caption}.*")
    parts += ["## Use", _usage(name), "## Classes", _classes(model, figures)]
    parts += ["## Data", about or "Not stated.", "## Average precision", _precision(figures)]
    parts += ["## Licence", license or "Not stated: ask the owner before you use the weights."]
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def copy_picture(folder: str | Path, picture: str | Path | None = None, run: str | Path | None = None) -> None:
    """Copy the picture of a card, if there is one, to the card's folder, which is made if it is missing.

    Raises:
        FileNotFoundError: if the picture that is given is missing.
    """
    image = _picture(picture, run)
    if image is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, Path(folder) / _beside(image))


def _picture(picture: str | Path | None, run: str | Path | None) -> Path | None:
    """The file to show: the one given, or else what the run drew at its end, if it is there."""
    if picture is not None:
        if not Path(picture).is_file():
            raise FileNotFoundError(f"no picture at {picture}")
        return Path(picture)
    drawn = None if run is None else Path(run) / "detections.png"
    return drawn if drawn is not None and drawn.is_file() else None


def _beside(picture: Path) -> str:
    return f"detections{picture.suffix.lower()}"


def _summary(model: SSD, kind: str) -> str:
    count = sum(p.numel() for p in model.parameters()) / 1e6
    size = (
        "of any size"
        if model.image_size is None
        else f"stretched to {model.image_size[1]}x{model.image_size[0]} pixels"
    )
    backbone = f" on `{model.config['backbone']}`" if model.config and model.config.get("backbone") else ""
    neck = type(model.pyramid.neck).__name__
    return (
        f"An object detector ({type(model).__name__}, preset `{kind}`) with {neck}{backbone}: {model.num_classes - 1} "
        f"classes, {count:.1f} M parameters, images {size}."
    )


def _usage(name: str | None) -> str:
    source = name or "FOLDER"
    where = "" if name else "\n\nFOLDER is the folder of this file."
    return (
        "With the library `feature-pyramids` installed with its extra `train`:\n\n"
        "```python\n"
        "from detectors import load\n\n"
        f'detector = load("{source}")\n'
        "[detections] = detector([image])  # (3, H, W) in 0..1; boxes in pixels, labels from 1, scores\n"
        "```\n\n"
        f"```sh\npython -m detectors predict --checkpoint {source} --output drawn photos\n```{where}"
    )


def _classes(model: SSD, figures: Mapping[str, Any] | None) -> str:
    names = model.class_names or [f"class {label}" for label in range(1, model.num_classes)]
    by_class = {} if figures is None else figures.get("classes", {})
    columns = ["AP", "AP50"] if by_class else []
    lines = [f"| {' | '.join(['label', 'class', *columns])} |", f"|{'---|' * (2 + len(columns))}"]
    for label, name in enumerate(names, start=1):
        cells = [str(label), _cell(name), *(_figure(by_class.get(name, {}).get(column)) for column in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _precision(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "Not measured."
    source = f"On the split `{figures['split']}`" if "split" in figures else "On a split that is not stated"
    source += f" of {figures['images']} images" if "images" in figures else ""
    head = f"| {' | '.join(_FIGURES)} |\n|{'---:|' * len(_FIGURES)}"
    row = f"| {' | '.join(_figure(figures.get(name)) for name in _FIGURES)} |"
    return f"{source}, COCO's figures in percent:\n\n{head}\n{row}"


def _figure(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _figures(
    model: SSD, report: Mapping[str, Any] | str | Path | None, run: str | Path | None
) -> dict[str, Any] | None:
    """The report, or else the run's evaluation with the highest AP, which is that of its best checkpoint."""
    figures: Any = None
    source: Any = "the report"
    if report is not None:
        source = report if isinstance(report, (str, Path)) else source
        figures = _read(Path(source)) if isinstance(report, (str, Path)) else dict(report)
    elif run is not None:
        source = Path(run) / "metrics.jsonl"
        lines = [json.loads(line) for line in _text(source).splitlines()]
        figures = max((line for line in lines if "AP" in line), key=lambda line: line["AP"], default=None)
        if figures is None:
            return None
    else:
        return None
    if not isinstance(figures, dict) or not isinstance(figures.get("AP"), (int, float)):
        raise InputError(f"{source} has no AP: expected the figures that evaluate returns or eval --json writes")
    unknown = set(figures.get("classes", {})) - set(model.class_names or ())
    if model.class_names and unknown:
        raise InputError(f"{source} is of other classes than the detector's: {', '.join(sorted(unknown)[:5])}")
    return figures


def _trained_on(run: Path) -> str:
    options = _read(run / "config.json").get("train", {})
    epochs = f"{options.get('epochs')} epoch{'s' * (options.get('epochs') != 1)}"
    data = "SyntheticScales, which the library draws" if not options.get("data") else f"`{Path(options['data']).name}`"
    start = f", from the weights of `{Path(options['weights']).name}`" if options.get("weights") else ""
    return (
        f"Trained on the split `{options.get('train_split', 'train')}` of {data}: {epochs} in batches "
        f"of {options.get('batch_size')}{start}."
    )


def _read(file: Path) -> Any:
    try:
        return json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from error


def _text(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    return file.read_text(encoding="utf-8")
