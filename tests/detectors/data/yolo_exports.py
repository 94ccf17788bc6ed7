"""Folders of YOLO, Darknet and DOTA texts as the tools of the field export them."""

from collections.abc import Callable
from pathlib import Path

from animals import ANIMALS, CLASSES, save_pictures, write_json, write_list


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
