# ruff: noqa: RUF001  (multiplication signs are meant)
"""Drawings of the necks that are paths between levels, the coarsest level on top: CSPPAFPN, HybridEncoder, RepGFPN.

Beside them SimpleFeaturePyramid, which has no paths.
"""

from canvas import Canvas
from shapes import Shapes, shapes_of, size

from pyramids import CSPPAFPN, HybridEncoder, RepGFPN, SimpleFeaturePyramid

TOP, MIDDLE, BOTTOM = 70, 190, 310
UPPER, LOWER = 130, 250  # between two rows
YOLO = [(256, 80, 80), (512, 40, 40), (1024, 20, 20)]
RESNET = [(512, 80, 80), (1024, 40, 40), (2048, 20, 20)]
DAMO = [(128, 80, 80), (256, 40, 40), (512, 20, 20)]


def draw_inputs(canvas: Canvas, shapes: list[str], ends: tuple[float, float, float]) -> None:
    """Arrows from the left into the three rows, coarsest on top, each with its shape, up to x of `ends`."""
    canvas.text(20, TOP - 40, "input maps", anchor="start", bold=True)
    for y, shape, end in zip((BOTTOM, MIDDLE, TOP), shapes, ends[::-1]):
        canvas.arrow((20, y), (end, y))
        canvas.text(25, y - 9, shape, anchor="start")


def draw_concat_pan(canvas: Canvas, s: Shapes, x: float, merge: str) -> None:
    """The two paths; the maps come in at `x` and, in the two lower rows, go on to the boxes that merge them."""
    first, second, third, last = x + 160, x + 390, x + 530, x + 670

    def merging(at: float, y: float) -> None:
        canvas.box(at, y, 110, 44, ["concatenate", merge], "join")

    canvas.box(x + 50, TOP, 84, 36, ["1×1 block"])
    canvas.arrow((x + 92, TOP), (last - 55, TOP))
    canvas.text((second + third) / 2, TOP - 9, s["pan.reduce.0"])
    canvas.arrow((first, TOP), (first, MIDDLE - 22))
    canvas.box(first, UPPER, 104, 30, [f"up to {size(s['pan.top_down.0'])}"], "resize")
    merging(first, MIDDLE)
    canvas.arrow((first + 55, MIDDLE), (x + 239, MIDDLE))
    canvas.box(x + 281, MIDDLE, 84, 36, ["1×1 block"])
    canvas.arrow((x + 323, MIDDLE), (third - 55, MIDDLE))
    canvas.text(x + 400, MIDDLE - 9, s["pan.reduce.1"])
    canvas.arrow((second - 20, MIDDLE), (second - 20, BOTTOM - 22))
    canvas.box(second - 20, LOWER, 104, 30, [f"up to {size(s['pan.top_down.1'])}"], "resize")
    merging(second - 20, BOTTOM)
    for i, (y, between, at) in enumerate([(BOTTOM, LOWER, third), (MIDDLE, UPPER, last)]):
        canvas.arrow((at, y), (at, y - 120 + 22))
        canvas.box(at, between, 106, 30, ["3×3, stride 2"])
        merging(at, y - 120)
        canvas.text(at + 8, between - 24, s[f"pan.down.{i}"], anchor="start", size=12)


def draw_csppafpn(canvas: Canvas, s: Shapes) -> None:
    draw_inputs(canvas, [f"{c} × {h} × {w}" for c, h, w in YOLO], (138, 233, 443))
    draw_concat_pan(canvas, s, 130, "CSP layer")
    starts = {TOP: 855, MIDDLE: 715, BOTTOM: 555}
    results = {TOP: s["pan:2"], MIDDLE: s["pan:1"], BOTTOM: s["pan:0"]}
    canvas.text(1090, TOP - 40, "outputs", bold=True)
    for i, y in enumerate((BOTTOM, MIDDLE, TOP)):
        canvas.arrow((starts[y], y), (973, y))
        canvas.text(914, y + 18, results[y])
        canvas.box(1008, y, 70, 44, ["1×1", "or 3×3"])
        canvas.arrow((1043, y), (1145, y))
        canvas.text(1094, y - 9, s[f"output.{i}"])


def draw_hybrid_encoder(canvas: Canvas, s: Shapes) -> None:
    shapes = [f"{c} × {h} × {w}" for c, h, w in RESNET]
    draw_inputs(canvas, shapes, (138, 138, 138))
    for i, y in enumerate((BOTTOM, MIDDLE, TOP)):
        canvas.box(180, y, 84, 36, ["1×1, norm"])
        canvas.text(271, y - 9, s[f"project.{i}"])
    canvas.arrow((222, TOP), (320, TOP))
    canvas.box(375, TOP, 110, 44, ["transformer", "layer"], "module")
    canvas.arrow((430, TOP), (458, TOP))
    canvas.arrow((222, MIDDLE), (553, MIDDLE))
    canvas.arrow((222, BOTTOM), (763, BOTTOM))
    draw_concat_pan(canvas, s, 450, "CSP block")
    canvas.text(1237, TOP - 40, "outputs", bold=True)
    for start, y, i in ((1175, TOP, 2), (1035, MIDDLE, 1), (875, BOTTOM, 0)):
        canvas.arrow((start, y), (1287, y))
        canvas.text(1234, y - 9, s[f"pan:{i}"])


def draw_repgfpn(canvas: Canvas, s: Shapes) -> None:
    draw_inputs(canvas, [f"{c} × {h} × {w}" for c, h, w in DAMO], (167, 317, 517))
    stages = [
        (235, TOP, "t5"),
        (385, MIDDLE, "t4"),
        (585, BOTTOM, "out 3"),
        (725, MIDDLE, "out 4"),
        (915, TOP, "out 5"),
    ]
    down = "3×3, stride 2"
    # Inputs down to the next coarser stage, as they come.
    canvas.arrow((225, MIDDLE), (225, TOP + 22))
    canvas.box(225, UPPER, 106, 30, [down])
    canvas.arrow((385, BOTTOM), (385, MIDDLE + 22))
    canvas.box(385, LOWER, 106, 30, [down])
    # From the coarser stage up to the finer.
    canvas.arrow((340, TOP), (340, MIDDLE - 22))
    canvas.box(340, UPPER, 104, 30, [f"up to {size(s['top_down.1'])}"], "resize")
    canvas.arrow((545, MIDDLE), (545, BOTTOM - 22))
    canvas.box(545, LOWER, 104, 30, [f"up to {size(s['top_down.2'])}"], "resize")
    # Across to the second stage of a level.
    canvas.arrow((301, TOP), (847, TOP))
    canvas.text(560, TOP - 9, s["top_down.0"])
    canvas.arrow((451, MIDDLE), (657, MIDDLE))
    canvas.text(535, MIDDLE - 9, s["top_down.1"])
    # And down to the coarser ones.
    canvas.arrow((620, MIDDLE), (620, UPPER), (870, UPPER), (870, TOP + 22))
    canvas.box(730, UPPER, 106, 30, [down])
    canvas.arrow((725, BOTTOM), (725, MIDDLE + 22))
    canvas.box(725, LOWER, 106, 30, [down])
    canvas.arrow((945, MIDDLE), (945, TOP + 22))
    canvas.box(945, UPPER, 106, 30, [down])
    for x, y, name in stages:
        canvas.box(x, y, 132, 44, [name, "concat, CSP stage"], "join")
    canvas.text(1075, TOP - 40, "outputs", bold=True)
    for start, y, part in ((981, TOP, "bottom_up.1"), (791, MIDDLE, "bottom_up.0"), (651, BOTTOM, "top_down.2")):
        canvas.arrow((start, y), (1125, y))
        canvas.text(1073, y - 9, s[part])


def draw_simple(canvas: Canvas, s: Shapes) -> None:
    bus, rows = 180, (50, 120, 190, 260)
    canvas.text(20, rows[2] - 30, "last map of a", anchor="start", bold=True)
    canvas.text(20, rows[2] - 14, "transformer", anchor="start", bold=True)
    canvas.arrow((20, rows[2]), (bus, rows[2]), head=False)
    canvas.text(25, rows[2] + 18, s["levels.2:in"], anchor="start")
    canvas.arrow((bus, rows[0]), (bus, rows[3]), head=False)
    canvas.text(934, 24, "outputs", bold=True)
    for i, y in enumerate(rows):
        canvas.arrow((bus, y), (626, y))
        canvas.text(567, y - 9, s[f"levels.{i}.resample"], size=12)
        canvas.box(674, y, 96, 44, ["1×1", "norm"])
        canvas.arrow((722, y), (756, y))
        canvas.box(804, y, 96, 44, ["3×3", "norm"])
        canvas.arrow((852, y), (1017, y))
        canvas.text(934, y - 9, s[f"levels.{i}"])
        canvas.text(934, y + 18, f"stride {4 * 2**i}")
    for x in (255, 449):
        canvas.box(x, rows[0], 124, 44, ["transposed 2×2", "stride 2"], "resize")
    canvas.box(352, rows[0], 60, 44, ["norm", "GELU"])
    canvas.box(255, rows[1], 124, 44, ["transposed 2×2", "stride 2"], "resize")
    canvas.box(255, rows[3], 124, 44, ["max pool 2×2", "stride 2"], "resize")


def drawings() -> dict[str, str]:
    """File name and document of every drawing."""
    kinds = {
        "csppafpn": (draw_csppafpn, (1155, 350), lambda: CSPPAFPN([c for c, _, _ in YOLO], [8, 16, 32]), YOLO),
        "hybrid-encoder": (
            draw_hybrid_encoder,
            (1297, 350),
            lambda: HybridEncoder([c for c, _, _ in RESNET], [8, 16, 32]),
            RESNET,
        ),
        "repgfpn": (draw_repgfpn, (1135, 350), lambda: RepGFPN([c for c, _, _ in DAMO], [8, 16, 32]), DAMO),
        "simple": (draw_simple, (1027, 300), lambda: SimpleFeaturePyramid([768], [16]), [(768, 64, 64)]),
    }
    files = {}
    for name, (draw, area, build, inputs) in kinds.items():
        shapes = shapes_of(build, inputs)
        for scheme in ("light", "dark"):
            canvas = Canvas(*area, name, scheme)
            draw(canvas, shapes)
            files[f"{name}-{scheme}.svg"] = canvas.svg()
    return files
