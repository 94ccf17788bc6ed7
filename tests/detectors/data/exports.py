"""Folders as the tools of the field export them, each with an independent reading of its boxes.

A writer puts the three animals of `ANIMALS` into a folder the way that a tool and version does; `expected` are boxes by
picture, taken by plain arithmetic from the description, by pycocotools or by `xml.etree` from what was written.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from PIL import Image

CLASSES = ("cat", "dog", "owl")
Boxes = dict[str, list[tuple[str, tuple[float, float, float, float]]]]

# Pictures by name: (width, height) and boxes (class, x1, y1, x2, y2) in whole pixels.
ANIMALS: dict[str, tuple[tuple[int, int], list[tuple[str, int, int, int, int]]]] = {
    "a": ((40, 30), [("cat", 1, 2, 11, 12), ("owl", 20, 5, 40, 30)]),
    "b": ((32, 48), [("dog", 2, 4, 30, 44)]),
}


class Export(NamedTuple):
    """A row of the guide's table: who writes it, how it lies on the disk, and how to read it otherwise."""

    tool: str
    layout: str
    write: Callable[[Path], None]
    read: Callable[[Path], dict[str, Boxes]]
    """Boxes by picture, by split."""


def save_pictures(folder: Path, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (size, _)) in enumerate(ANIMALS.items()):
        Image.new("RGB", size, (40 * number, 90, 160)).save(folder / f"{name}{suffix}")


def described(*splits: str) -> Callable[[Path], dict[str, Boxes]]:
    """The boxes of the description, for each split."""
    boxes: Boxes = {
        name: [(kind, (float(x1), float(y1), float(x2), float(y2))) for kind, x1, y1, x2, y2 in found]
        for name, (_, found) in ANIMALS.items()
    }
    return lambda folder: dict.fromkeys(splits, boxes)


# COCO


def coco_content(
    prefix: str = "", suffix: str = ".png", change: Callable[[dict[str, Any]], None] = lambda content: None
) -> dict[str, Any]:
    images, annotations = [], []
    for image_id, (name, (size, boxes)) in enumerate(ANIMALS.items(), start=1):
        images.append({"id": image_id, "file_name": f"{prefix}{name}{suffix}", "width": size[0], "height": size[1]})
        for kind, x1, y1, x2, y2 in boxes:
            entry = {"image_id": image_id, "category_id": CLASSES.index(kind) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, "area": (x2 - x1) * (y2 - y1), **entry})
    categories = [{"id": number, "name": name, "supercategory": "animals"} for number, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    change(content)
    return content


def write_json(file: Path, content: object, encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding=encoding)


def by_pycocotools(**files: str) -> Callable[[Path], dict[str, Boxes]]:
    """Boxes of the JSON file of each split, by COCO's own reader."""

    def read(folder: Path) -> dict[str, Boxes]:
        from pycocotools.coco import COCO

        found: dict[str, Boxes] = {}
        for split, file in files.items():
            coco = COCO(str(folder / file))
            found[split] = {}
            for image in coco.loadImgs(coco.getImgIds()):
                boxes = []
                for entry in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                    x, y, width, height = (float(value) for value in entry["bbox"])
                    name = coco.loadCats(entry["category_id"])[0]["name"]
                    boxes.append((name, (x, y, x + width, y + height)))
                found[split][Path(image["file_name"].replace("\\", "/")).stem] = boxes
        return found

    return read


def roboflow_coco(folder: Path) -> None:
    root = [{"id": 0, "name": "animals", "supercategory": "none"}]
    for split in ("train", "valid", "test"):
        save_pictures(folder / split, ".jpg")
        content = coco_content(suffix=".jpg")
        content["categories"] = root + content["categories"]
        write_json(folder / split / "_annotations.coco.json", content)
    (folder / "README.roboflow.txt").write_text("exported")


def nested_roboflow_coco(folder: Path) -> None:
    for split in ("train", "valid"):
        save_pictures(folder / split / "images", ".jpg")
        write_json(folder / split / "_annotations.coco.json", coco_content(suffix=".jpg"))


def split_folders_coco(folder: Path) -> None:
    for split in ("train", "val"):
        save_pictures(folder / split / "images", ".JPG")
        write_json(folder / split / "annotations" / "instances.json", coco_content(suffix=".jpg"))


def official_coco(folder: Path) -> None:
    for split in ("train2017", "val2017"):
        save_pictures(folder / split)
        write_json(folder / "annotations" / f"instances_{split}.json", coco_content())
        write_json(folder / "annotations" / f"captions_{split}.json", {"images": [], "annotations": []})
        write_json(folder / "annotations" / f"person_keypoints_{split}.json", coco_content())


def cvat_coco(folder: Path) -> None:
    save_pictures(folder / "images" / "default")
    write_json(folder / "annotations" / "instances_default.json", coco_content())


def mmdetection_coco(folder: Path) -> None:
    for split in ("train", "val", "custom_x"):
        save_pictures(folder / split)
        write_json(folder / "annotations" / f"{split}.json", coco_content())


def fiftyone_coco(folder: Path) -> None:
    save_pictures(folder / "data")
    write_json(folder / "labels.json", coco_content())


def labelme_coco(folder: Path) -> None:
    save_pictures(folder / "JPEGImages")

    def change(content: dict[str, Any]) -> None:
        content["categories"].insert(0, {"id": 0, "name": "_background_", "supercategory": None})

    write_json(folder / "annotations.json", coco_content("JPEGImages/", change=change))


def label_studio_coco(folder: Path) -> None:
    save_pictures(folder / "images")
    write_json(folder / "result.json", coco_content("images\\"))


def lvis(folder: Path) -> None:
    save_pictures(folder / "train2017", ".jpg")

    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            name = image.pop("file_name")
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"

    write_json(folder / "lvis_v1_train.json", coco_content(suffix=".jpg", change=change))


def texts_for_numbers(folder: Path) -> None:
    save_pictures(folder / "images")

    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = float(image["id"])
        for entry in content["annotations"]:
            entry["image_id"] = str(entry["image_id"])
            entry["category_id"] = f"{entry['category_id']}"
            entry["bbox"] = [str(value) for value in entry["bbox"]]

    write_json(folder / "train.json", coco_content(change=change), encoding="utf-8-sig")


def only_segmentations(folder: Path) -> None:
    save_pictures(folder / "images")

    def change(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            x, y, width, height = entry.pop("bbox")
            right, bottom = x + width, y + height
            entry["segmentation"] = [[x, y, right, y, right, bottom, x, bottom]]

    write_json(folder / "train.json", coco_content(change=change))


# Pascal VOC


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


def write_list(file: Path, lines: list[str], encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding=encoding)


def official_voc(folder: Path) -> None:
    home = folder / "VOCdevkit" / "VOC2007"
    save_pictures(home / "JPEGImages", ".jpg")
    save_xmls(home / "Annotations", ".jpg")
    for split in ("train", "val"):
        write_list(home / "ImageSets" / "Main" / f"{split}.txt", ["a"] if split == "train" else ["b"])
        write_list(home / "ImageSets" / "Main" / f"cat_{split}.txt", ["a  1", "b -1"])


def read_official_voc(folder: Path) -> dict[str, Boxes]:
    boxes = by_etree(all="VOCdevkit/VOC2007/Annotations")(folder)["all"]
    return {"train": {"a": boxes["a"]}, "val": {"b": boxes["b"]}}


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


def read_vott(folder: Path) -> dict[str, Boxes]:
    boxes = by_etree(all="Annotations")(folder)["all"]
    return {"train": {"a": boxes["a"]}, "val": {"b": boxes["b"]}}


def lower_case_voc(folder: Path) -> None:
    save_pictures(folder / "images")
    save_xmls(folder / "annotations")


def nested_voc(folder: Path) -> None:
    save_pictures(folder / "JPEGImages" / "cam 1")
    save_xmls(folder / "Annotations" / "cam 1")
    write_list(folder / "ImageSets" / "Main" / "training.txt", ["cam 1/a.png", "cam 1/b"], encoding="utf-8-sig")


# YOLO


def yolo_box(kind: str, box: tuple[int, ...], size: tuple[int, int], names: tuple[str, ...] = CLASSES) -> str:
    x1, y1, x2, y2 = box
    width, height = size
    middle = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{names.index(kind)} " + " ".join(f"{value:.8f}" for value in middle)


def yolo_corners(kind: str, box: tuple[int, ...], size: tuple[int, int]) -> str:
    x1, y1, x2, y2 = box
    width, height = size
    points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    return f"{CLASSES.index(kind)} " + " ".join(f"{x / width:.8f} {y / height:.8f}" for x, y in points)


def yolo_polygon(kind: str, box: tuple[int, ...], size: tuple[int, int]) -> str:
    left, top, right, _ = box
    return yolo_corners(kind, box, size) + f" {(left + right) / 2 / size[0]:.8f} {top / size[1]:.8f}"


def save_labels(folder: Path, line: Callable[[str, tuple[int, ...], tuple[int, int]], str] = yolo_box) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (size, boxes) in ANIMALS.items():
        text = "".join(line(kind, tuple(box), size) + "\n" for kind, *box in boxes)
        (folder / f"{name}.txt").write_text(text)


def roboflow_yolo(folder: Path) -> None:
    for split in ("train", "valid"):
        save_pictures(folder / split / "images", ".jpg")
        save_labels(folder / split / "labels")
    lines = ["train: ../train/images", "val: ../valid/images", "", "nc: 3", "names: ['cat', 'dog', 'owl']"]
    write_list(folder / "data.yaml", lines)


def ultralytics_yolo(folder: Path, line: Callable[[str, tuple[int, ...], tuple[int, int]], str] = yolo_box) -> None:
    for split in ("train", "val"):
        save_pictures(folder / "images" / split)
        save_labels(folder / "labels" / split, line)
    lines = ["path: ../datasets/animals  # dataset root dir", "train: images/train", "val: images/val", "test:"]
    write_list(folder / "animals.yaml", [*lines, "names:", "  0: cat", "  1: dog", "  2: owl"])


def listed_yolo(folder: Path) -> None:
    for split in ("train", "val"):
        save_pictures(folder / "images" / split)
        save_labels(folder / "labels" / split)
        for kind, file in (("images", "b.png"), ("labels", "b.txt")):
            (folder / kind / f"{split} 2").mkdir()
            (folder / kind / split / file).rename(folder / kind / f"{split} 2" / file)
    lines = ["path: /home/ann/datasets/animals", "train:", "  - images/train", "  - images/train 2"]
    lines += ["val: [./images/val/, ./images/val 2/]", "names: {0: cat, 1: dog, 2: owl}"]
    write_list(folder / "animals.yaml", lines)


def fiftyone_yolo(folder: Path) -> None:
    ultralytics_yolo(folder)
    (folder / "animals.yaml").unlink()
    lines = ["names:", "  0: cat", "  1: dog", "  2: owl", "path: /home/ann/export", "train: ./images/train/"]
    write_list(folder / "dataset.yaml", [*lines, "val: ./images/val/"])


def foreign_darknet(folder: Path) -> None:
    save_pictures(folder / "obj", ".jpg")
    save_labels(folder / "obj")
    place = "/content/darknet/data"
    write_list(folder / "train.txt", [f"{place}/obj/{name}.jpg" for name in ANIMALS])
    lines = ["classes = 3", f"train  = {place}/train.txt", f"names = {place}/obj.names", "backup = /mydrive/yolo"]
    write_list(folder / "obj.data", lines)
    write_list(folder / "obj.names", list(CLASSES))


def segmentation_yolo(folder: Path) -> None:
    ultralytics_yolo(folder, yolo_polygon)


def oriented_yolo(folder: Path) -> None:
    ultralytics_yolo(folder, yolo_corners)


def scored_yolo(folder: Path) -> None:
    ultralytics_yolo(folder, lambda *args: f"{yolo_box(*args)} 0.87")


def tracked_yolo(folder: Path) -> None:
    ultralytics_yolo(folder, lambda *args: f"{yolo_box(*args)} 0.87 12")


def pose_yolo(folder: Path) -> None:
    ultralytics_yolo(folder, lambda *args: f"{yolo_box(*args)} 0.5 0.5 2 0.4 0.3 1")
    with (folder / "animals.yaml").open("a") as file:
        file.write("kpt_shape: [2, 3]\n")


def cvat_yolo(folder: Path) -> None:
    save_pictures(folder / "obj_train_data")
    save_labels(folder / "obj_train_data")
    write_list(folder / "obj.names", list(CLASSES))
    lines = ["classes = 3", "train = data/train.txt", "names = data/obj.names", "backup = backup/"]
    write_list(folder / "obj.data", lines)
    write_list(folder / "train.txt", ["data/obj_train_data/a.png", "data/obj_train_data/b.png"])


def label_studio_yolo(folder: Path) -> None:
    save_pictures(folder / "images")
    save_labels(folder / "labels")
    write_list(folder / "classes.txt", list(CLASSES))
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    write_json(folder / "notes.json", {"categories": categories, "info": {"version": "1.0"}})


def notes_only_yolo(folder: Path) -> None:
    label_studio_yolo(folder)
    (folder / "classes.txt").unlink()


def capital_yolo(folder: Path) -> None:
    for split in ("Train", "Validation"):
        save_pictures(folder / "Images" / split)
        save_labels(folder / "Labels" / split)
    for file in (folder / "Labels" / "Train").iterdir():
        file.rename(file.with_suffix(".TXT"))
    write_list(folder / "data.yaml", ["names: [cat, dog, owl]"])


def darknet_yolo(folder: Path) -> None:
    for split in ("train", "valid"):
        save_pictures(folder / split, ".jpg")
        save_labels(folder / split)
        write_list(folder / split / "_darknet.labels", list(CLASSES))


def labelimg_yolo(folder: Path) -> None:
    save_pictures(folder)
    save_labels(folder)
    write_list(folder / "classes.txt", list(CLASSES))


def dota(folder: Path) -> None:
    save_pictures(folder / "images")
    (folder / "labelTxt").mkdir(parents=True)
    for name, (_, boxes) in ANIMALS.items():
        rows = [f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {kind} 0" for kind, x1, y1, x2, y2 in boxes]
        write_list(folder / "labelTxt" / f"{name}.txt", rows)


def official_dota(folder: Path) -> None:
    for split in ("train", "val"):
        dota(folder / split)
        (folder / split / "labelTxt").rename(folder / split / "labelTxt-v1.0")
        for file in (folder / split / "labelTxt-v1.0").iterdir():
            file.write_text("imagesource:GoogleEarth\ngsd:0.146343590398\n" + file.read_text())


EXPORTS = [
    Export("Roboflow, COCO", "`{train,valid,test}/_annotations.coco.json` beside the pictures", roboflow_coco,
           by_pycocotools(train="train/_annotations.coco.json", val="valid/_annotations.coco.json",
                          test="test/_annotations.coco.json")),
    Export("Roboflow, COCO", "the same with `{train,valid}/images/`", nested_roboflow_coco,
           by_pycocotools(train="train/_annotations.coco.json", val="valid/_annotations.coco.json")),
    Export("Supervisely, COCO", "`{train,val}/annotations/instances.json`, `{train,val}/images/`, `.JPG`",
           split_folders_coco,
           by_pycocotools(train="train/annotations/instances.json", val="val/annotations/instances.json")),
    Export("COCO 2017", "`annotations/instances_{train,val}2017.json`, `train2017/`", official_coco,
           by_pycocotools(train="annotations/instances_train2017.json", val="annotations/instances_val2017.json")),
    Export("CVAT 2, COCO 1.0", "`annotations/instances_default.json`, `images/`", cvat_coco,
           by_pycocotools(train="annotations/instances_default.json")),
    Export("MMDetection", "`annotations/{train,val,custom_x}.json`, `train/`", mmdetection_coco,
           by_pycocotools(train="annotations/train.json", val="annotations/val.json",
                          custom_x="annotations/custom_x.json")),
    Export("FiftyOne 1, COCODetectionDataset", "`labels.json`, `data/`", fiftyone_coco,
           by_pycocotools(train="labels.json")),
    Export("labelme 5, labelme2coco", "`annotations.json`, `JPEGImages/`", labelme_coco,
           by_pycocotools(train="annotations.json")),
    Export("Label Studio 1, COCO", "`result.json`, `images/`, backslashes", label_studio_coco,
           by_pycocotools(train="result.json")),
    Export("LVIS v1", "`lvis_v1_train.json` with `coco_url`", lvis, described("train")),
    Export("COCO with text for numbers", "`train.json`, ids and boxes as text, a byte-order mark", texts_for_numbers,
           described("train")),
    Export("COCO with segmentations only", "`train.json` without `bbox`", only_segmentations, described("train")),
    Export("Pascal VOC 2007", "`VOCdevkit/VOC2007`, `ImageSets/Main`", official_voc, read_official_voc),
    Export("CVAT 2, PASCAL VOC 1.1", "`Annotations/`, `JPEGImages/`, `default.txt` with quotes", cvat_voc,
           by_etree(train="Annotations")),
    Export("Roboflow, Pascal VOC", "`{train,valid}/` with XML beside the pictures", roboflow_voc,
           by_etree(train="train", val="valid")),
    Export("labelImg 1, Pascal VOC", "XML beside the pictures", labelimg_voc, by_etree(train=".")),
    Export("VoTT 2, Pascal VOC", "`ImageSets/Main/{cat,dog}_{train,val}.txt` alone", vott_voc, read_vott),
    Export("VOC in lower case", "`annotations/`, `images/`", lower_case_voc, by_etree(train="annotations")),
    Export("VOC with sub-folders", "`Annotations/cam 1/`, `training.txt` with suffixes and spaces", nested_voc,
           by_etree(train="Annotations")),
    Export("Roboflow, YOLOv5 to v11", "`{train,valid}/{images,labels}`, `data.yaml` with `../`", roboflow_yolo,
           described("train", "val")),
    Export("Ultralytics 8, detect", "`{images,labels}/{train,val}`, a YAML with `path`", ultralytics_yolo,
           described("train", "val")),
    Export("Ultralytics 8, detect", "the same with a list of folders per split", listed_yolo,
           described("train", "val")),
    Export("FiftyOne 1, YOLOv5Dataset", "`{images,labels}/{train,val}`, `dataset.yaml`", fiftyone_yolo,
           described("train", "val")),
    Export("Ultralytics 8, segment", "the same with polygons", segmentation_yolo, described("train", "val")),
    Export("Ultralytics 8, obb", "the same with four corners (9 columns)", oriented_yolo, described("train", "val")),
    Export("Ultralytics 8, pose", "the same with keypoints", pose_yolo, described("train", "val")),
    Export("Ultralytics 8, predict --save-conf", "the same with a sixth column", scored_yolo,
           described("train", "val")),
    Export("Ultralytics 8, track --save-conf", "the same with a score and a track", tracked_yolo,
           described("train", "val")),
    Export("CVAT 2, YOLO 1.1", "`obj.data`, `obj.names`, `train.txt`, `obj_train_data/`", cvat_yolo,
           described("train")),
    Export("Label Studio 1, YOLO", "`images/`, `labels/`, `classes.txt`, `notes.json`", label_studio_yolo,
           described("train")),
    Export("Label Studio 1, YOLO", "the same with `notes.json` alone", notes_only_yolo, described("train")),
    Export("YOLO in capitals", "`{Images,Labels}/{Train,Validation}`, `.TXT`", capital_yolo,
           described("train", "val")),
    Export("Roboflow, Darknet", "`{train,valid}/` with texts beside the pictures, `_darknet.labels`", darknet_yolo,
           described("train", "val")),
    Export("Darknet", "`obj/`, `obj.data` and `train.txt` with paths of another machine", foreign_darknet,
           described("train")),
    Export("labelImg 1, YOLO", "texts beside the pictures, `classes.txt`", labelimg_yolo, described("train")),
    Export("DOTA 1.5", "`images/`, `labelTxt/` with corners in pixels", dota, described("train")),
    Export("DOTA 1.0", "`{train,val}/{images,labelTxt-v1.0}`, two header lines", official_dota,
           described("train", "val")),
]  # fmt: skip
