"""Every architecture of timm under three necks: what works, at which size, from which maps, and why the rest does not.

`python -m benchmarks.timm_sweep` runs `attach(name, neck)` at 320x512 for MLFPN (maps of strides 8 and 16), FPN (8, 16
and 32) and the simple feature pyramid (the last map, as it is), on the meta device, where weights and maps have shapes
and no values, and follows the advice of the error where a model does not take that size. It resumes where it was
stopped and writes `timm.json` and `timm.md`.
"""

import argparse
import json
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch

from pyramids import FeaturePyramid, attach
from pyramids.unused import graph_leaves
from pyramids.weightless import needs_data, weightless

Size = tuple[int, int]
# The necks, and what they ask of a backbone.
NECKS = {"mlfpn": "strides 8, 16", "fpn": "strides 8, 16, 32", "simple": "the last map, of a stride near 16"}
# The size of the paper's comparison, then larger ones for models whose nearest size is too small for six scales.
SIZES: tuple[Size, ...] = ((320, 512), (512, 512), (640, 640))
ADVICE = re.compile(r"nearest size found that it takes is (\d+)x(\d+)")


def families() -> dict[str, str]:
    """The family (module of timm) of every architecture that timm ships."""
    names = {name: module for module in timm.list_modules() for name in timm.list_models(module=module)}
    return {name: names[name] for name in sorted(names) if timm.model_entrypoint(name).__module__.startswith("timm.")}


def in_turn(family: dict[str, str]) -> list[str]:
    """Names with the first of every family first, so that a stopped sweep has covered all families."""
    seen: Counter[str] = Counter()
    order = {}
    for name, module in family.items():
        order[name] = seen[module]
        seen[module] += 1
    return sorted(family, key=lambda name: order[name])


class Outcome(NamedTuple):
    """A pyramid that ran, and the names of its parameters that no map depends on."""

    pyramid: FeaturePyramid
    unused: list[str]


def run(name: str, neck: str, size: Size, real: bool = False) -> Outcome:
    """Build and run at one size, on the meta device or with real tensors; the maps must be as declared."""
    with nullcontext() if real else weightless():
        pyramid = attach(name, neck, image_size=size).eval()
        for parameter in pyramid.parameters():  # those too that timm holds still
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        maps = pyramid(torch.empty(1, 3, *size))
    got = [(x.shape[1], (x.shape[2], x.shape[3])) for x in maps]
    declared = list(zip(pyramid.out_channels, pyramid.output_sizes(size)))
    if got != declared:
        raise RuntimeError(f"the maps are {got}, declared were {declared}")
    used = graph_leaves(maps)
    return Outcome(pyramid, [key for key, parameter in pyramid.named_parameters() if id(parameter) not in used])


def run_somewhere(name: str, neck: str, size: Size) -> Outcome:
    """Run on the meta device; with real tensors the few models that read values of their tensors on the way."""
    try:
        return run(name, neck, size)
    except (RuntimeError, ValueError) as error:
        if not needs_data(error):
            raise
    return run(name, neck, size, real=True)


def examine_all(task: tuple[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Outcomes of an architecture under several necks, in one process, which describes the architecture once."""
    name, necks = task
    return [examine(name, neck) for neck in necks]


def examine(name: str, neck: str) -> dict[str, Any]:
    """Outcome of an architecture under a neck: the size that worked and the maps that served, or why none did."""
    start = time.perf_counter()
    reason = ""
    for size in SIZES:
        for _ in range(2):
            try:
                pyramid, unused = run_somewhere(name, neck, size)
            except Exception as error:  # a row of the results, whatever it is
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                advice = ADVICE.search(str(error))
                if advice is None:
                    break
                size = (int(advice[1]), int(advice[2]))
                continue
            backbone = pyramid.backbone
            return {
                "name": name,
                "neck": neck,
                "size": list(size),
                "taps": [[tap.stride, tap.channels] for tap in backbone.taps],
                "nhwc": any(tap.nhwc for tap in backbone.taps),
                "parameters": sum(p.numel() for p in backbone.body.parameters()),
                "unused": len(unused),
                "seconds": round(time.perf_counter() - start, 2),
            }
    return {"name": name, "neck": neck, "reason": reason, "seconds": round(time.perf_counter() - start, 2)}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows in Markdown, one line per architecture, under a summary."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        results.setdefault(row["name"], {})[row["neck"]] = row
    wasteful = [name for name, by_neck in results.items() if any(row.get("unused") for row in by_neck.values())]
    lines = [
        "# Three necks on every architecture of timm",
        "",
        f"`attach(name, neck)` on the {len(results)} architectures of timm {timm.__version__}. All run on the meta "
        "device, but the few that read values of their tensors, which run on the CPU. Every parameter that is left in "
        f"a backbone gets a gradient{', but in ' + ', '.join(wasteful) if wasteful else ''}.",
        "",
        "| neck | asks for | runs on | of them at 320x512 |",
        "|---|---|---:|---:|",
    ]
    for neck, asked in NECKS.items():
        sizes = [by_neck[neck]["size"] for by_neck in results.values() if "size" in by_neck[neck]]
        lines.append(f"| {neck} | {asked} | {len(sizes)} of {len(results)} | {sizes.count([320, 512])} |")
    lines += [
        "",
        "A tap is the stride of the backbone's map and its channels. Where the stride is not the one that the neck "
        "asks for, the map is resampled; the simple pyramid takes it as it is. The size is given where it is not "
        "320x512.",
        "",
        f"| architecture | family | {' | '.join(f'taps for {neck}' for neck in NECKS)} |",
        f"|---|---|{'---|' * len(NECKS)}",
    ]
    for name, by_neck in results.items():
        family = next(iter(by_neck.values()))["family"]
        lines.append(f"| {name} | {family} | {' | '.join(entry(by_neck[neck]) for neck in NECKS)} |")
    return "\n".join(lines) + "\n"


def entry(result: dict[str, Any]) -> str:
    """The taps of one architecture under one neck, or why there are none."""
    if "size" not in result:
        return str(result["reason"]).replace("|", " ")
    taps = ", ".join(f"{stride} ({channels})" for stride, channels in result["taps"])
    return taps if result["size"] == [320, 512] else f"{taps} at {result['size'][0]}x{result['size'][1]}"


def main() -> None:
    """Run what is still missing, in `--jobs` processes, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--partial", type=Path, default=Path("runs/timm_sweep_necks.jsonl"), help="what is done so far")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--names", nargs="*", default=None, help="only these, again")
    parser.add_argument("--sample", type=int, default=None, help="only this many, of different families")
    args = parser.parse_args()
    args.partial.parent.mkdir(parents=True, exist_ok=True)
    lines = args.partial.read_text().splitlines() if args.partial.exists() else []
    done = {(row["name"], row["neck"]): row for row in map(json.loads, lines)}
    family = families()
    names = in_turn(family)[: args.sample] if args.names is None else args.names
    missing = [(name, [neck for neck in NECKS if args.names or (name, neck) not in done]) for name in names]
    todo = [(name, necks) for name, necks in missing if necks]
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(args.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        args.partial.open("a") as file,
    ):
        for results in pool.imap_unordered(examine_all, todo):
            for row in results:
                done[row["name"], row["neck"]] = row
                file.write(json.dumps(row) + "\n")
            file.flush()
    seen = {name for name, _ in done}
    rows = [{**done[name, neck], "family": family[name]} for name in family if name in seen for neck in NECKS]
    args.output.mkdir(parents=True, exist_ok=True)
    document = {"timm": timm.__version__, "torch": torch.__version__, "rows": rows}
    (args.output / "timm.json").write_text(json.dumps(document, indent=0) + "\n")
    (args.output / "timm.md").write_text(table(rows))


if __name__ == "__main__":
    main()
