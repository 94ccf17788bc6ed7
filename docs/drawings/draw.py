# ruff: noqa: RUF001  (multiplication signs are meant)
"""The drawings of the documentation: `python docs/drawings/draw.py` writes them to docs/images.

Every shape on an arrow is read off the module at work, on the meta device, so that no drawing can differ from the code.
"""

from pathlib import Path

import grids
import paths
from canvas import Canvas
from shapes import Shapes, channels, shapes_of, size

from pyramids import MLFPN

IMAGES = Path(__file__).resolve().parents[1] / "images"


def draw_ffmv1(canvas: Canvas, s: Shapes) -> None:
    top, bottom = 60, 150
    canvas.text(20, top - 34, "shallow map", anchor="start", bold=True)
    canvas.text(20, bottom + 44, "deep map", anchor="start", bold=True)
    canvas.arrow((20, top), (140, top))
    canvas.text(75, top - 9, s["ffm.shallow:in"])
    canvas.box(190, top, 100, 40, ["3×3 block"])
    canvas.arrow((240, top), (610, top), (610, 88))
    canvas.text(425, top - 9, s["ffm.shallow"])
    canvas.arrow((20, bottom), (140, bottom))
    canvas.text(75, bottom + 20, s["ffm.deep:in"])
    canvas.box(190, bottom, 100, 40, ["1×1 block"])
    canvas.arrow((240, bottom), (360, bottom))
    canvas.text(300, bottom + 20, s["ffm.deep"])
    canvas.box(425, bottom, 130, 40, [f"up to {size(s['ffm'])}"], "resize")
    canvas.arrow((490, bottom), (610, bottom), (610, 122))
    canvas.text(550, bottom + 20, f"{channels(s['ffm.deep'])} × {size(s['ffm'])}")
    canvas.box(610, 105, 100, 34, ["concatenate"], "join")
    canvas.arrow((660, 105), (790, 105))
    canvas.text(726, 96, s["ffm"])
    canvas.text(726, 126, "base feature", bold=True)


def draw_ffmv2(canvas: Canvas, s: Shapes) -> None:
    paper = "fuse.0" in s or "fuse.0.reduce" in s
    reduced = s["fuse.0.reduce"] if paper else s["reduce"]
    top, bottom = 60, 150
    canvas.text(20, top - 34, "base feature", anchor="start", bold=True)
    canvas.text(20, bottom + 24, "finest output of the TUM before", anchor="start", bold=True)
    canvas.arrow((20, top), (160, top))
    canvas.text(85, top - 9, s["ffm"])
    own = "own weights per level" if paper else "one for all levels"
    canvas.box(240, top, 160, 44, ["1×1 block", own])
    canvas.arrow((320, top), (480, top), (480, 88))
    canvas.text(400, top - 9, reduced)
    canvas.arrow((20, bottom), (480, bottom), (480, 122))
    canvas.text(250, bottom - 9, s["tums.0:0"])
    canvas.box(480, 105, 100, 34, ["concatenate"], "join")
    canvas.arrow((530, 105), (670, 105))
    canvas.text(600, 96, s["tums.1.encoder.0:in"])
    canvas.text(600, 126, "to the next TUM", bold=True)


def draw_tum(canvas: Canvas, s: Shapes) -> None:
    """The second TUM: encoder down the left side, decoder up the right, scales in rows."""
    paper = "tums.1.decoder.0" in s
    left, right, first, pitch = 110, 470, 70, 92
    encoded = [s["tums.1.encoder.0:in"], *(s[f"tums.1.encoder.{i}"] for i in range(5))]
    # What a decoder step adds up is as wide as the encoder's inside.
    inside = [f"{channels(encoded[1])} × {size(shape)}" for shape in encoded]
    rows = [first + pitch * i for i in range(6)]
    canvas.text(left, 24, "input", bold=True)
    canvas.text(right, 24, "decoder", bold=True)
    canvas.text(730, 24, "outputs", bold=True)
    canvas.arrow((left, 32), (left, rows[0] + 29))
    canvas.text(left - 8, 52, encoded[0], anchor="end")
    for i, y in enumerate(rows):
        last = i == 5
        if not last:
            words = "3×3, stride 2" if i < 4 else "3×3, no padding"
            canvas.box(left, y + 46, 140, 34, [words])
            canvas.arrow((left, y + 63), (left, rows[i + 1] + (0 if i == 4 else 29)), head=i < 4)
            canvas.text(left - 8, y + 80, encoded[i + 1], anchor="end")
            draw_decoder_step(canvas, right, y, paper, inside[i + 1], inside[i])
        draw_skip(canvas, s, i, (left, right), y, encoded[i], inside[i])
        start = right + (0 if last and paper else 12)
        shape = s[f"tums.1:{i}"]
        if f"tums.1.smooth.{i}" in s:
            canvas.arrow((start, y), (592, y))
            canvas.text(542, y + 17, inside[i])
            canvas.box(640, y, 96, 34, ["1×1 block"])
            canvas.arrow((688, y), (800, y))
            canvas.text(748, y - 8, shape)
        else:
            canvas.arrow((start, y), (800, y))
            canvas.text(748, y - 8, shape)


def draw_decoder_step(canvas: Canvas, x: float, y: float, paper: bool, coarse: str, fine: str) -> None:
    """From the row below up to the sum in row `y`."""
    words = f"3×3 block, up to {size(fine)}" if paper else f"up to {size(fine)}"
    canvas.arrow((x, y + 92 - 12), (x, y + 64))
    canvas.text(x + 8, y + 80, coarse, anchor="start", size=12)
    canvas.box(x, y + 46, 170, 34, [words], "conv" if paper else "resize")
    canvas.arrow((x, y + 29), (x, y + 12))
    canvas.text(x - 8, y + 25, fine, anchor="end", size=12)
    canvas.sign(x, y, "+")


def draw_skip(
    canvas: Canvas, s: Shapes, i: int, columns: tuple[float, float], y: float, shape: str, inside: str
) -> None:
    """From the encoder over to the decoder in row `y`."""
    left, right = columns
    paper = "tums.1.decoder.0" in s
    if paper:
        canvas.arrow((left, y), (right - (0 if i == 5 else 12), y), head=i < 5)
        canvas.text((left + right) / 2, y - 8, shape)
        if i == 5:
            canvas.arrow((right, y), (right, y - 12), head=False)
        return
    words = "1×1 block" if i == 5 else "3×3 block"
    canvas.arrow((left, y), (222, y))
    canvas.text((left + 222) / 2, y - 8, shape)
    canvas.box(270, y, 96, 34, [words])
    canvas.arrow((318, y), (right + (12 if i == 5 else -12), y), head=i < 5)
    canvas.text((318 + right) / 2, y - 8, inside)
    if i == 5:
        canvas.arrow((right, y), (right, y - 12), head=False)


def draw_sfam(canvas: Canvas, s: Shapes) -> None:
    paper = "fuse.0.reduce" in s
    scale = size(s["tums.0:1"])
    level, joined = s["tums.0:1"], s["sfam:1"]
    squeezed, weights = s["sfam.excite.0.fc1"], s["sfam.excite.0.fc2"]
    for y, name in ((60, "TUM 1"), (120, "TUM 2"), (220, "TUM 8")):
        canvas.box(60, y, 90, 36, [name], "module")
        canvas.arrow((105, y), (262, y))
        canvas.text(182, y - 8, level)
    canvas.text(60, 176, "⋮", size=20)
    canvas.text(182, 176, "⋮", size=20)
    canvas.box(282, 140, 40, 210, [], "join")
    canvas.parts.append(
        f'<text x="0" y="0" transform="translate(287 140) rotate(-90)" text-anchor="middle" font-size="13" '
        f'fill="{canvas.colors["text"]}">concatenate</text>'
    )
    canvas.arrow((302, 200), (778, 200))
    canvas.text(460, 218, joined)
    canvas.arrow((382, 200), (382, 84))
    canvas.text(390, 130, joined, anchor="start")
    canvas.box(382, 64, 90, 40, ["mean over", "the map"], "resize")
    canvas.arrow((427, 64), (523, 64))
    canvas.text(475, 55, weights, size=12)
    canvas.box(563, 64, 80, 40, ["1×1", "ReLU"])
    canvas.arrow((603, 64), (693, 64))
    canvas.text(648, 55, squeezed, size=12)
    canvas.box(733, 64, 80, 40, ["1×1", "sigmoid"])
    canvas.arrow((773, 64), (790, 64), (790, 188))
    canvas.text(782, 130, weights, anchor="end")
    canvas.sign(790, 200, "×")
    canvas.arrow((802, 200), (930, 200))
    canvas.text(864, 191, joined)
    own = "each with attention weights of its own" if paper else "all with the same attention weights"
    canvas.text(60, 275, f"Drawn for the {scale} scale. The other scales go the same way, {own}.", anchor="start")
    if not paper:
        canvas.text(60, 295, f"A batch norm follows on the largest scale, {s['norm']}.", anchor="start")


def draw_mlfpn(canvas: Canvas, s: Shapes) -> None:
    paper = "fuse.0.reduce" in s
    bus, fuse, tum, gather = 60, 150, 250, 380
    canvas.box(70, bus, 110, 52, ["backbone", "VGG-16, 320"], "plain")
    canvas.arrow((125, bus - 14), (258, bus - 14))
    canvas.text(191, bus - 22, s["ffm.shallow:in"])
    canvas.arrow((125, bus + 14), (258, bus + 14))
    canvas.text(191, bus + 31, s["ffm.deep:in"])
    canvas.box(303, bus, 90, 52, ["FFMv1"])
    canvas.arrow((348, bus), (740, bus), (740, fuse - 22))
    canvas.arrow((570, bus), (570, fuse - 22))
    canvas.text(570, fuse + 8, "⋯", size=24)
    canvas.text(420, bus - 9, s["ffm"])
    canvas.text(420, bus + 19, "base feature", bold=True)
    reduced = s["fuse.0.reduce"] if paper else s["reduce"]
    columns = [(130, "1×1 block", "TUM 1"), (390, "FFMv2", "TUM 2"), (740, "FFMv2", "TUM 8")]
    for x, words, name in columns:
        first = x == 130
        whole = f"{channels(s['ffm'])} to {channels(s['reduce'])}"
        note = whole if first else f"{channels(reduced)} of the base" if paper else "the same 1×1"
        if x != 740:
            turn = [(500, bus), (500, 108), (x, 108), (x, fuse - 22)] if first else [(x, 108), (x, fuse - 22)]
            canvas.arrow(*turn)
        canvas.box(x, fuse, 130, 44, [words, note], "conv" if first else "join")
        canvas.arrow((x, fuse + 22), (x, tum - 20))
        canvas.text(x + 8, fuse + 44, s["tums.0.encoder.0:in"] if first else s["tums.1.encoder.0:in"], anchor="start")
        canvas.box(x, tum, 130, 40, [name], "module")
        canvas.arrow((x, tum + 20), (x, gather - 20))
        canvas.text(x + 8, tum + 45, "6 maps,", anchor="start")
        canvas.text(x + 8, tum + 62, s["tums.0:0"], anchor="start")
        canvas.text(x + 8, tum + 79, f"to {s['tums.0:5']}", anchor="start")
    canvas.text(584, tum + 8, "⋯", size=24)
    for start, end, label in ((195, 325, True), (455, 550, True), (605, 675, False)):
        # The finest output of a TUM feeds the FFMv2 of the next.
        canvas.arrow((start, tum), ((start + end) / 2, tum), ((start + end) / 2, fuse), (end, fuse))
        if label:
            canvas.text((start + end) / 2 + 6, 206, s["tums.0:0"], anchor="start", size=12)
    canvas.box(440, gather, 780, 40, ["SFAM: concatenate the levels of each scale, weigh the channels"], "join")
    outputs = [s["norm"] if i == 0 and not paper else s[f"sfam:{i}"] for i in range(6)]
    for i, shape in enumerate(outputs):
        x = 130 + 122 * i
        canvas.arrow((x, gather + 20), (x, gather + 66))
        canvas.text(x, gather + 84, shape, size=12)
    if not paper:
        canvas.arrow((130, gather + 92), (130, gather + 114))
        canvas.box(130, gather + 130, 120, 32, ["batch norm"])
        canvas.arrow((130, gather + 146), (130, gather + 168))
        canvas.text(130, gather + 186, outputs[0], size=12)


def draw_architecture(canvas: Canvas) -> None:
    """Two walks of data through the modules: to the left of the middle what both share."""
    learn, shared, find = 70, 190, 310
    canvas.text(20, learn - 44, "learning", anchor="start", bold=True)
    canvas.text(20, find + 52, "finding", anchor="start", bold=True)
    canvas.box(85, learn, 130, 44, ["folder", "COCO, VOC, YOLO"], "plain")
    canvas.arrow((150, learn), (185, learn))
    canvas.box(255, learn, 140, 44, ["data", "read, augment"], "module")
    canvas.arrow((255, learn + 22), (255, shared - 30))
    canvas.text(263, learn + 60, "images, boxes, labels", anchor="start", size=12)
    canvas.box(85, find, 130, 44, ["picture", "or many"], "plain")
    canvas.arrow((150, find), (255, find), (255, shared + 30))
    canvas.box(255, shared, 140, 60, ["models.inputs", "check, batch"], "conv")
    canvas.arrow((325, shared), (385, shared))
    canvas.text(355, shared - 9, "batch", size=12)
    canvas.box(455, shared, 140, 60, ["pyramids", "backbone, neck"], "resize")
    canvas.arrow((525, shared), (585, shared))
    canvas.text(555, shared - 9, "maps", size=12)
    canvas.box(665, shared, 160, 60, ["models.head", "and models.anchors"], "conv")
    canvas.arrow((665, shared - 30), (665, learn + 22))
    canvas.text(673, learn + 60, "offsets, logits, anchors", anchor="start", size=12)
    canvas.box(665, learn, 160, 44, ["ops.matcher", "ops.box_coder"], "join")
    canvas.arrow((745, learn), (785, learn))
    canvas.box(850, learn, 130, 44, ["models.loss", "two scalars"], "conv")
    canvas.arrow((915, learn), (955, learn))
    canvas.box(1020, learn, 130, 44, ["training", "step, evaluate"], "module")
    canvas.arrow((1020, learn + 22), (1020, shared - 30))
    canvas.box(1020, shared, 130, 60, ["saving", "released, card"], "module")
    canvas.arrow((955, shared), (915, shared))
    canvas.box(850, shared, 130, 60, ["inference", "deploy, export"], "conv")
    canvas.arrow((785, shared), (745, shared))
    canvas.arrow((665, shared + 30), (665, find - 22))
    canvas.text(673, find - 46, "offsets, scores, anchors", anchor="start", size=12)
    canvas.box(665, find, 160, 44, ["models.postprocess", "ops.nms"], "join")
    canvas.arrow((745, find), (785, find))
    canvas.box(850, find, 130, 44, ["boxes", "scores, labels"], "plain")
    canvas.arrow((915, find), (955, find))
    canvas.box(1020, find, 130, 44, ["drawing", "commands"], "module")


DRAWINGS = {
    "ffmv1": (draw_ffmv1, (810, 210), "FFMv1"),
    "ffmv2": (draw_ffmv2, (690, 190), "FFMv2"),
    "tum": (draw_tum, (820, 560), "TUM"),
    "sfam": (draw_sfam, (940, 310), "SFAM"),
    "mlfpn": (draw_mlfpn, (850, 490), "MLFPN"),
}


def drawings() -> dict[str, str]:
    """File name and document of every drawing."""
    files = {}
    for design in ("paper", "released"):
        shapes = shapes_of(lambda design=design: MLFPN([512, 1024], design=design), [(512, 40, 40), (1024, 20, 20)])
        for name, (draw, area, title) in DRAWINGS.items():
            if name == "ffmv1" and design == "released":
                continue  # the same in both designs
            stem = name if name == "ffmv1" else f"{name}-{design}"
            for scheme in ("light", "dark"):
                if stem == "mlfpn-released":
                    area = (area[0], 580)
                canvas = Canvas(*area, f"{title}, {design} design" if stem != name else title, scheme)
                draw(canvas, shapes)
                files[f"{stem}-{scheme}.svg"] = canvas.svg()
    for scheme in ("light", "dark"):
        canvas = Canvas(1110, 380, "The modules of the library, and the data that goes through them", scheme)
        draw_architecture(canvas)
        files[f"architecture-{scheme}.svg"] = canvas.svg()
    return files | paths.drawings() | grids.drawings()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for file, document in drawings().items():
        (IMAGES / file).write_text(document, encoding="utf-8")
