"""`python -m benchmarks report`: pages of tables and plots from results files; missing results are named."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import ablation_pages, pages, runtime_pages, trained_pages
from benchmarks.results import read_results
from benchmarks.tables import failures, table

MISSING = "not measured yet"


class Page(NamedTuple):
    """A page: its title, its introduction, and the functions that turn results files into lines."""

    title: str
    about: str
    section: Callable[[pages.Source], list[str]]
    together: Callable[[Mapping[str, Mapping[str, Any]]], list[str]] | None = None


PAGES = {
    "necks": Page(
        "Costs",
        "Parameters, operations, latency and, on CUDA, memory of necks on several backbones. Necks have the widths of "
        "their papers and make six maps from stride 8 on; torchvision's own FPN makes three. Ratios are to the "
        "baseline in the same run, and a second measurement of the baseline shows the noise.",
        pages.necks,
        pages.necks_together,
    ),
    "ablation": Page(
        "Ablation",
        "Table 2 of the M2Det paper row by row, and the library's other necks beside it. All rows share data, "
        "schedule, seeds and, where their maps have equal width, the head, and each has had the same search for its "
        "learning rate and the size of its initial weights. The search's short runs learn from a quarter of the "
        "pictures and are measured on the same test pictures as the results. FPN, PAFPN and SSD's layers have batch "
        "norms here, which their papers do not give them, so that no row is held back for want of them: the others "
        "have them. As in `train`, norms of a momentum below 0.1 have 0.1 in runs that are too short for their own: "
        "BiFPN's up to 4,096 pictures, CSPPAFPN's and RepGFPN's in the search. The paper's figures are COCO minival "
        "with VGG-16 at 320x320, from its section 4; compare the steps, not the levels.",
        ablation_pages.ablation,
        ablation_pages.ablation_together,
    ),
    "gradients": Page(
        "Gradients and initialization",
        "Why a neck learns or does not: the relative update of its weights per step of Adam (median over the "
        "convolutions that a norm follows, learning rate 1e-3), the root mean squares of its maps, and by how much the "
        "gradient grows from each level of an MLFPN to the one before, at initialization and after some steps. Every "
        "neck is that of its row of the ablation, before the search, on the same backbone.",
        trained_pages.gradients,
    ),
    "allocator": Page(
        "Memory of the CPU",
        "Training steps on the CPU as glibc's allocator does by itself, and with freed memory kept for the next "
        "allocation, as `train`, `demo` and the comparisons by training do. Processes of the two kinds take turns; "
        "times faster is the median over pairs.",
        trained_pages.allocator,
    ),
    "variants": Page(
        "Levels and channels",
        "Table 3 of the M2Det paper. Parameters are those of the full M2Det (VGG-16, 320x320, 81 classes) beside the "
        "paper's; what was trained is a thinner one, as the table says.",
        trained_pages.variants,
    ),
    "complexity": Page(
        "Scale and complexity",
        "AP at IoU 0.50 to 0.95 on SyntheticScales by the scale of objects and by how complex they look: plain shapes, "
        "textures, and composites whose class lies in the arrangement of their parts. The paper's claim is that deeper "
        "levels serve more complex appearance at the same scale.",
        trained_pages.complexity,
    ),
    "speed": Page(
        "Speed",
        "Network and suppression together, one image at a time, as in the paper's Fig. 5. Weights are random: with "
        "score thresholds of 0, `full`, suppression has the most that it can have to do; `own` are the models' "
        "thresholds. Others take turns with eager detectors on the same images; times faster is the median of pairs. "
        "The machine is not equally fast from one row to the next, so compare ratios, not milliseconds of two rows.",
        runtime_pages.speed,
    ),
    "nms": Page(
        "Suppression",
        "Linear soft-NMS and hard NMS over (images, classes, boxes), against a plain loop over classes and "
        "torchvision's `batched_nms`.",
        runtime_pages.nms,
    ),
    "training": Page(
        "Trained detectors",
        "Runs of `python -m detectors train` on small data sets of real pictures, from ImageNet weights, measured on "
        "pictures that they have not seen. AP in percent. The published figures are of other splits of the same "
        "pictures and of detectors that had seen COCO's boxes.",
        trained_pages.training,
    ),
    "real": Page(
        "Real pictures",
        "Necks on the backbone of the small presets, at their size and from ImageNet weights, trained alike on real "
        "pictures with the defaults of `python -m detectors train`, and measured on pictures that they have not seen. "
        "FPN and PAFPN have three maps of the backbone, as in their papers, where a row does not say two; MLFPN and "
        "SSD have two. torchvision's RetinaNet, with an FPN and heads of 96 channels, has the same backbone, pictures, "
        "optimizer and schedule. Its anchors are its paper's, whose smallest side is 32 pixels, which is coarse for "
        "pictures of this size. No row has had a search of its own. Minutes are of training, beside whatever else "
        "ran, and not all on one machine: they tell how long a run takes, not which is faster.",
        trained_pages.real,
    ),
    "loader": Page(
        "Loading",
        "Images per second that reach training, by the number of loader processes and the work on each image: JPEG "
        "files of 512x512 pixels, stretched to the size of the settings.",
        runtime_pages.loader,
    ),
    "activations": Page(
        "Activations",
        "What each level of an MLFPN adds to the class logits of each scale, as in the paper's Fig. 6, and SFAM's "
        "attention by level.",
        pages.activations,
    ),
}


@dataclass(kw_only=True)
class Report:
    """Turn results files into Markdown pages with tables and plots."""

    results: Path = Path("docs/results/data")
    """Folder that holds a folder of results files for every device."""
    output: Path = Path("docs/results")
    """Folder to write the pages to."""

    def run(self) -> int:
        if not self.results.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.results}: it holds a folder for each device, as from `necks --output "
                f"{self.results}/cpu`"
            )
        self.output.mkdir(parents=True, exist_ok=True)
        index = ["# Results", "", "Every number here comes from a results file that a command wrote.", ""]
        if (self.output / "conclusion.md").exists():
            index += ["In plain words: [conclusions](conclusion.md).", ""]
        entries = []
        for name, page in PAGES.items():
            files = {path.parent.name: path for path in sorted(self.results.glob(f"*/{name}.json"))}
            contents = {slug: read_results(path) for slug, path in files.items()}
            (self.output / f"{name}.md").write_text("\n".join(self._page(name, page, contents)).rstrip() + "\n")
            devices = "; ".join(dict.fromkeys(pages.device(c) for c in contents.values())) or MISSING
            entries.append([f"[{page.title}]({name}.md)", devices])
            print(f"report: {name}.md: {devices}")
        entries += self._timm()
        index += table(["page", "measured on"], entries, left=2)
        (self.output / "index.md").write_text("\n".join(index).rstrip() + "\n")
        return 0

    def _page(self, name: str, page: Page, contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
        lines = [f"# {page.title}", "", page.about, ""]
        if not contents:
            data = " --data FOLDER" if name == "real" else ""
            command = f"python -m benchmarks {name} --budget cpu{data} --output {self.results.as_posix()}/DEVICE"
            return [*lines, f"**{MISSING.capitalize()}.** Run `{command}`, then `python -m benchmarks report`."]
        if len(contents) > 1 and page.together is not None:
            lines += ["## Devices side by side", "", *page.together(contents)]
        for slug, content in contents.items():
            lines += [f"## {pages.device(content)}", "", *_origin(content)]
            files = os.path.relpath(self.results / slug, self.output)
            source = pages.Source(content["rows"], content["settings"], self.output, slug, Path(files).as_posix())
            lines += [*page.section(source), *failures(content["rows"])]
        return lines

    def _timm(self) -> list[list[str]]:
        """Results of the sweep over timm's architectures, which writes a page of its own."""
        file = self.output / "timm.json"
        if not file.exists():
            return [["Three necks on every architecture of timm", MISSING]]
        rows = json.loads(file.read_text())["rows"]
        served = sum("size" in row for row in rows)
        text = f"{served} of {len(rows)} pairs of a neck and an architecture"
        title = file.with_suffix(".md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        return [[f"[{title}](timm.md)", text]]


def _origin(content: Mapping[str, Any]) -> list[str]:
    """The origin of a file's numbers."""
    env = content["environment"]
    versions = ", ".join(f"{name} {env[name]}" for name in ("python", "torch", "torchvision", "timm"))
    settings = ", ".join(f"{key} {value}" for key, value in content["settings"].items())
    commits = dict.fromkeys([content["commit"], *(row["commit"] for row in content["rows"] if "commit" in row)])
    at = f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}"
    others = Counter(row["instructions"] for row in content["rows"] if "instructions" in row)
    at += "".join(f"; {count} rows on {instructions}" for instructions, count in others.items())
    return [
        f"`{content['command']}` at {at}; {versions}; {env['platform']}.",
        "",
        *([f"Settings: {settings}.", ""] if settings else []),
    ]
