"""Folders of Pascal VOC XML as the tools of the field export them, and a reading of their boxes by `xml.etree`."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from animals import ANIMALS, CLASSES, Boxes, save_pictures, write_list


def voc_xml(name: str, suffix: str = ".png", declaration: str = "") -> str:
    size, boxes = ANIMALS[name]
    objects = "".join(
        f"<object><name>{kind}</name><pose>Unspecified</pose><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for kind, x1, y1, x2, y2 in boxes
    )
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"{declaration}<annotation><filename>{name}{suffix}</filename>{shape}{objects}</annotation>"


def save_xmls(folder: Path, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ANIMALS:
        (folder / f"{name}.xml").write_text(voc_xml(name, suffix))


def by_etree(**folders: str) -> Callable[[Path], dict[str, Boxes]]:
    """Boxes of the XML files in a folder for each split; corners count from 1, edges from 0."""

    def read(folder: Path) -> dict[str, Boxes]:
        found: dict[str, Boxes] = {}
        for split, inner in folders.items():
            found[split] = {}
            for file in sorted((folder / inner).rglob("*.xml")):
                boxes = []
                for item in ElementTree.parse(file).getroot().iter("object"):
                    x1, y1, x2, y2 = (float(item.find("bndbox").findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax"))
                    boxes.append((item.findtext("name"), (x1 - 1, y1 - 1, x2, y2)))
                found[split][file.stem] = boxes
        return found

    return read


def official_voc(folder: Path) -> None:
    home = folder / "VOCdevkit" / "VOC2007"
    save_pictures(home / "JPEGImages", ".jpg")
    save_xmls(home / "Annotations", ".jpg")
    for split in ("train", "val"):
        write_list(home / "ImageSets" / "Main" / f"{split}.txt", ["a"] if split == "train" else ["b"])
        write_list(home / "ImageSets" / "Main" / f"cat_{split}.txt", ["a  1", "b -1"])


def by_lists(annotations: str) -> Callable[[Path], dict[str, Boxes]]:
    """A reading of one folder of XML whose lists put the picture a into train and b into val."""

    def read(folder: Path) -> dict[str, Boxes]:
        boxes = by_etree(all=annotations)(folder)["all"]
        return {"train": {"a": boxes["a"]}, "val": {"b": boxes["b"]}}

    return read


def cvat_voc(folder: Path) -> None:
    save_pictures(folder / "JPEGImages")
    save_xmls(folder / "Annotations")
    write_list(folder / "ImageSets" / "Main" / "default.txt", ["a", '"b"'])


def roboflow_voc(folder: Path) -> None:
    for split in ("train", "valid"):
        save_pictures(folder / split, ".jpg")
        save_xmls(folder / split, ".jpg")


def labelimg_voc(folder: Path) -> None:
    save_pictures(folder)
    save_xmls(folder)


def vott_voc(folder: Path) -> None:
    save_pictures(folder / "JPEGImages", ".jpg")
    save_xmls(folder / "Annotations", ".jpg")
    for kind in CLASSES:
        for split, name in (("train", "a"), ("val", "b")):
            sign = "1" if kind in {box[0] for box in ANIMALS[name][1]} else "-1"
            write_list(folder / "ImageSets" / "Main" / f"{kind}_{split}.txt", [f"{name}.jpg {sign}"])


def lower_case_voc(folder: Path) -> None:
    save_pictures(folder / "images")
    save_xmls(folder / "annotations")


def nested_voc(folder: Path) -> None:
    save_pictures(folder / "JPEGImages" / "cam 1")
    save_xmls(folder / "Annotations" / "cam 1")
    write_list(folder / "ImageSets" / "Main" / "training.txt", ["cam 1/a.png", "cam 1/b"], encoding="utf-8-sig")
