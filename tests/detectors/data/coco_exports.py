"""Folders of COCO JSON as the tools of the field export them, and COCO's own reading of their boxes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from animals import ANIMALS, CLASSES, Boxes, save_pictures, write_json


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
