# ruff: noqa: RUF001  (multiplication signs are meant)
"""Drawings of the necks whose levels exchange maps both ways, coarsest level on top: BiFPN, NAS-FPN, FPG, BFP."""

from canvas import Canvas
from shapes import Shapes, shapes_of, size

from pyramids import BFP, FPG, NASFPN, BiFPN

EFFICIENTNET = [(40, 64, 64), (112, 32, 32), (320, 16, 16)]
RESNET = [(512, 80, 80), (1024, 40, 40), (2048, 20, 20)]
FPN = [(256, 80, 80), (256, 40, 40), (256, 20, 20), (256, 10, 10), (256, 5, 5)]


def draw_bifpn(canvas: Canvas, s: Shapes) -> None:
    rows = [380, 300, 220, 140, 60]  # of levels 3 to 7
    down, up = 400, 640
    cell = "cells.0"
    shapes = [s[f"{cell}:{i}"] for i in range(5)]
    canvas.text(90, 24, "inputs", bold=True)
    canvas.text(down, 24, "top-down", bold=True)
    canvas.text(up, 24, "bottom-up", bold=True)
    canvas.text(790, 24, "outputs", bold=True)
    for (c, h, w), y in zip(EFFICIENTNET, rows):
        canvas.text(20, y + 5, f"{c} × {h} × {w}", anchor="start")
    canvas.arrow((80, rows[2] - 14), (80, rows[3] + 22))
    canvas.box(80, rows[3], 120, 44, ["1×1, norm,", "max pool"], "resize")
    canvas.arrow((80, rows[3] - 22), (80, rows[4] + 17))
    canvas.box(80, rows[4], 120, 34, ["max pool"], "resize")
    for level, y in enumerate(rows):
        inner = 0 < level < 4
        start = 126 if level < 3 else 140
        canvas.arrow((start, y), ((down if inner else up) - 45, y))
        if inner:
            canvas.arrow((250, y), (250, y - 30), (up - 25, y - 30), (up - 25, y - 18))
            canvas.box(down, y, 90, 36, ["node"], "join")
            canvas.arrow((down + 45, y), (up - 45, y))
            canvas.arrow((down, rows[level + 1] + (18 if level < 3 else 0)), (down, y - 18))
            canvas.text(down + 8, y - 34, f"up to {size(shapes[level])}", anchor="start", size=12)
        canvas.box(up, y, 90, 36, ["node"], "join")
        canvas.arrow((up + 45, y), (850, y))
        canvas.text(780, y - 9, shapes[level])
        if level < 4:
            canvas.arrow((up, y - 18), (up, rows[level + 1] + 18))
            canvas.text(up + 8, y - 36, "max pool", anchor="start", size=12)
    canvas.arrow((down, rows[1] + 18), (down, rows[0] - 36), (up - 25, rows[0] - 36), (up - 25, rows[0] - 18))
    canvas.text(down + 8, rows[0] - 42, f"up to {size(shapes[0])}", anchor="start", size=12)
    y = 470
    canvas.text(20, y + 5, "a node", anchor="start", bold=True)
    steps = [("weighted sum", "join"), ("SiLU", "plain"), ("depthwise 3×3", "conv"), ("1×1, norm", "conv")]
    for i, (words, kind) in enumerate(steps):
        canvas.arrow((100 + 180 * i, y), (140 + 180 * i, y))
        canvas.box(205 + 180 * i, y, 130, 34, [words], kind)
    canvas.arrow((810, y), (850, y))
    words = "In the first cell each of the three input maps has a 1×1 convolution and a norm of its own for every use."
    canvas.text(20, y + 45, words, anchor="start")


def draw_nasfpn(canvas: Canvas, s: Shapes) -> None:
    p3, p4, p5, p6, p7 = rows = [420, 330, 240, 150, 60]
    shapes = [s[f"stages.0:{i}"] for i in range(5)]
    end = 1010
    canvas.text(60, 24, "level", bold=True)
    canvas.text(end + 75, 24, "to the next stage", bold=True)

    def node(x: float, y: float, kind: str, cell: str) -> None:
        canvas.box(x, y, 112, 44, [kind, cell], "join" if kind == "sum" else "module")

    for i, y in enumerate(rows):
        canvas.text(20, y + 5, f"P{i + 3}", anchor="start", bold=True)
        canvas.text(end + 75, y - 9, shapes[i])
    # Level 4, twice.
    canvas.arrow((45, p6), (180, p6), (180, p4 - 22))
    canvas.arrow((45, p4), (126, p4))
    canvas.arrow((90, p4), (90, p4 + 40), (310, p4 + 40), (310, p4 + 22))
    canvas.arrow((234, p4), (256, p4))
    # Levels 3 and 4.
    canvas.arrow((364, p4), (506, p4))
    canvas.arrow((435, p4), (435, p3 - 22))
    canvas.arrow((45, p3), (381, p3))
    canvas.arrow((560, p3), (560, p4 + 22))
    canvas.arrow((489, p3), (end + 140, p3))
    canvas.arrow((614, p4), (end + 140, p4))
    # Level 5, from the new levels 3 and 4.
    canvas.arrow((45, p5), (631, p5))
    canvas.arrow((660, p3), (660, 300))
    canvas.arrow((710, p4), (710, 300))
    canvas.box(685, 287, 108, 26, ["global pooling"], "module")
    canvas.arrow((685, 274), (685, p5 + 22))
    canvas.arrow((739, p5), (end + 140, p5))
    # Level 7, from the new level 5 and the second map of level 4.
    canvas.arrow((45, p7), (761, p7))
    canvas.arrow((395, p4), (395, 190), (790, 190), (790, 120))
    canvas.arrow((840, p5), (840, 120))
    canvas.box(815, 107, 108, 26, ["global pooling"], "module")
    canvas.arrow((815, 94), (815, p7 + 22))
    canvas.arrow((869, p7), (end + 140, p7))
    # Level 6, from the new levels 7 and 5.
    canvas.arrow((945, p7), (945, p6 - 22))
    canvas.arrow((945, p5), (945, p6 + 22))
    canvas.arrow((999, p6), (end + 140, p6))
    node(180, p4, "global pooling", "gp_64_4")
    node(310, p4, "sum", "sum_44_4")
    node(435, p3, "sum", "sum_43_3")
    node(560, p4, "sum", "sum_34_4")
    node(685, p5, "sum", "sum_55_5")
    node(815, p7, "sum", "sum_77_7")
    node(945, p6, "global pooling", "gp_75_6")
    words = [
        "An arrow between levels resizes: up by nearest neighbor, down by max pooling.",
        "Global pooling adds one map, each channel weighed by the sigmoid of the other's mean, to that other map.",
        "A ReLU, a 3×3 convolution and a norm follow every box that has a name.",
    ]
    for i, line in enumerate(words):
        canvas.text(20, 490 + 22 * i, line, anchor="start")


def draw_fpg(canvas: Canvas, s: Shapes) -> None:
    rows = [340, 270, 200, 130, 60]
    columns = [250 + 92 * k for k in range(7)]  # the first pathway, five more, and the ninth
    last = len(columns) - 1
    radius = 12
    canvas.text(70, 24, "inputs", bold=True)
    canvas.text(columns[0], 24, "first", bold=True)
    for k in range(1, 6):
        canvas.text(columns[k], 24, f"pathway {k}", size=12)
    canvas.text(columns[last], 24, "pathway 9", size=12)
    canvas.text(1010, 24, "outputs", bold=True)
    for (c, h, w), y in zip(RESNET, rows):
        canvas.text(20, y - 9, f"{c} × {h} × {w}", anchor="start")
        canvas.arrow((20, y), (145, y))
        canvas.box(180, y, 70, 30, ["1×1"])
        canvas.arrow((215, y), (columns[0] - radius, y))
    for level in (3, 4):
        canvas.arrow((columns[0], rows[level - 1] - radius), (columns[0], rows[level] + radius))
        canvas.text(columns[0] - 8, rows[level] + 40, "3×3, stride 2", anchor="end", size=12)

    def has_node(k: int, level: int) -> bool:
        return k == last or k >= 5 - level

    for k in range(1, last + 1):
        for level, y in enumerate(rows):
            node = has_node(k, level)
            starts = columns[k - 1] + (radius if k == 1 or has_node(k - 1, level) else 0)
            canvas.arrow((starts, y), (columns[k] - (radius if node else 0), y), head=node)
            if not node:
                continue
            if level > 0:
                below = radius if has_node(k, level - 1) else 0
                canvas.arrow((columns[k], rows[level - 1] - below), (columns[k], y + radius))
            if level < 4:
                canvas.arrow((columns[k - 1] + 9, rows[level + 1] + 8), (columns[k] - 9, y - 8))
    for level, y in enumerate(rows):
        for k in range(last + 1):
            if k == 0:
                canvas.box(columns[0], y, 20, 20, [], "plain")
            elif has_node(k, level):
                canvas.sign(columns[k], y, "+")
        canvas.text((columns[5] + columns[6]) / 2, y - 8, "⋯", size=16)
        canvas.arrow((columns[last] + radius, y), (865, y))
        canvas.box(910, y, 90, 34, ["ReLU, 3×3"])
        canvas.arrow((955, y), (1080, y))
        canvas.text(1018, y - 9, s[f"output.{level}"])
    top, pitch = 420, 38
    canvas.text(20, top + 5, "a node", anchor="start", bold=True)
    terms = [
        ("next finer level, same pathway", "ReLU, 3×3, stride 2, norm"),
        ("same level, pathway before", "ReLU, 1×1, norm"),
        ("next coarser level, pathway before", "upsampling, ReLU, 3×3, norm"),
        ("same level, first pathway", "ReLU, 1×1, norm"),
    ]
    middle = top + 1.5 * pitch
    for i, (source, words) in enumerate(terms):
        y = top + i * pitch
        canvas.text(350, y + 5, source, anchor="end")
        canvas.arrow((360, y), (410, y))
        canvas.box(525, y, 230, 30, [words])
        canvas.arrow((640, y), (680, y), (680, middle + (-radius if i < 2 else radius)), head=i in (0, 3))
    canvas.sign(680, middle, "+")
    canvas.arrow((692, middle), (750, middle))


def draw_bfp(canvas: Canvas, s: Shapes) -> None:
    rows = [380, 300, 220, 140, 60]
    level, middle = 2, 220
    target = f"{FPN[level][1]} × {FPN[level][2]}"
    canvas.text(70, 18, "maps of a neck", bold=True)
    canvas.text(940, 18, "outputs", bold=True)
    for i, ((c, h, w), y) in enumerate(zip(FPN, rows)):
        canvas.text(20, y - 9, f"{c} × {h} × {w}", anchor="start")
        canvas.arrow((140, y), (140, y - 32), (840, y - 32), (840, y - 12))
        if i == level:
            canvas.arrow((20, y), (360, y))
            canvas.arrow((600, y), (828, y))
        else:
            words = "max pool to" if i < level else "up to"
            canvas.arrow((20, y), (170, y))
            canvas.box(245, y, 150, 34, [f"{words} {target}"], "resize")
            canvas.arrow((320, y), (340, y), (340, middle), head=False)
            words = "up to" if i < level else "max pool to"
            canvas.arrow((640, middle), (640, y), (660, y))
            canvas.box(735, y, 150, 34, [f"{words} {h} × {w}"], "resize")
            canvas.arrow((810, y), (828, y))
        canvas.sign(840, y, "+")
        canvas.arrow((852, y), (1000, y))
        canvas.text(930, y - 9, s[f":{i}"])
    canvas.box(400, middle, 80, 40, ["mean"], "join")
    canvas.arrow((440, middle), (480, middle))
    canvas.box(540, middle, 120, 40, ["non-local", "block"], "module")


def drawings() -> dict[str, str]:
    """File name and document of every drawing."""
    kinds = {
        "bifpn": (
            draw_bifpn,
            (870, 535),
            lambda: BiFPN([c for c, _, _ in EFFICIENTNET], [8, 16, 32]),
            EFFICIENTNET,
        ),
        "nasfpn": (draw_nasfpn, (1170, 550), lambda: NASFPN([c for c, _, _ in RESNET], [8, 16, 32]), RESNET),
        "fpg": (draw_fpg, (1100, 560), lambda: FPG([c for c, _, _ in RESNET], [8, 16, 32]), RESNET),
        "bfp": (draw_bfp, (1020, 410), lambda: BFP([c for c, _, _ in FPN], [8, 16, 32, 64, 128]), FPN),
    }
    files = {}
    for name, (draw, area, build, inputs) in kinds.items():
        shapes = shapes_of(build, inputs)
        for scheme in ("light", "dark"):
            canvas = Canvas(*area, name, scheme)
            draw(canvas, shapes)
            files[f"{name}-{scheme}.svg"] = canvas.svg()
    return files
