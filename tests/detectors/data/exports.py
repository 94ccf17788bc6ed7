"""Folders as the tools of the field export them, each with an independent reading of its boxes.

A writer puts the three animals of `ANIMALS` into a folder the way that a tool and version does; `expected` are boxes by
picture, taken by plain arithmetic from the description, by pycocotools or by `xml.etree` from what was written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from animals import Boxes, described
from coco_exports import (
    by_pycocotools,
    cvat_coco,
    fiftyone_coco,
    label_studio_coco,
    labelme_coco,
    lvis,
    mmdetection_coco,
    nested_roboflow_coco,
    official_coco,
    only_segmentations,
    roboflow_coco,
    split_folders_coco,
    texts_for_numbers,
)
from voc_exports import (
    by_etree,
    by_lists,
    cvat_voc,
    labelimg_voc,
    lower_case_voc,
    nested_voc,
    official_voc,
    roboflow_voc,
    vott_voc,
)
from yolo_exports import (
    capital_yolo,
    cvat_yolo,
    darknet_yolo,
    dota,
    fiftyone_yolo,
    foreign_darknet,
    label_studio_yolo,
    labelimg_yolo,
    listed_yolo,
    notes_only_yolo,
    official_dota,
    oriented_yolo,
    pose_yolo,
    roboflow_yolo,
    scored_yolo,
    segmentation_yolo,
    tracked_yolo,
    ultralytics_yolo,
)


class Export(NamedTuple):
    """A row of the guide's table: who writes it, how it lies on the disk, and how to read it otherwise."""

    tool: str
    layout: str
    write: Callable[[Path], None]
    read: Callable[[Path], dict[str, Boxes]]
    """Boxes by picture, by split."""


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
    Export("Pascal VOC 2007", "`VOCdevkit/VOC2007`, `ImageSets/Main`", official_voc,
           by_lists("VOCdevkit/VOC2007/Annotations")),
    Export("CVAT 2, PASCAL VOC 1.1", "`Annotations/`, `JPEGImages/`, `default.txt` with quotes", cvat_voc,
           by_etree(train="Annotations")),
    Export("Roboflow, Pascal VOC", "`{train,valid}/` with XML beside the pictures", roboflow_voc,
           by_etree(train="train", val="valid")),
    Export("labelImg 1, Pascal VOC", "XML beside the pictures", labelimg_voc, by_etree(train=".")),
    Export("VoTT 2, Pascal VOC", "`ImageSets/Main/{cat,dog}_{train,val}.txt` alone", vott_voc, by_lists("Annotations")),
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
