"""Every architecture of timm under MLFPN: what works, at which size, from which maps, and why the rest does not.

`python -m benchmarks.timm_sweep` runs `attach(name, "mlfpn")` at 320x512 on the meta device, where weights and maps
have shapes and no values, and follows the advice of the error where a model does not take that size. It resumes where
it was stopped and writes `timm.json` and `timm.md`.
"""

import argparse
import json
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch

from pyramids import FeaturePyramid, attach
from pyramids.weightless import needs_data, weightless

Size = tuple[int, int]
# The size of the paper's comparison, then larger ones for models whose nearest size is too small for six scales.
SIZES: tuple[Size, ...] = ((320, 512), (512, 512), (640, 640))
ADVICE = re.compile(r"nearest size found that it takes is (\d+)x(\d+)")


def families() -> dict[str, str]:
    """The family (module of timm) of every architecture that timm ships."""
    names = {name: module for module in timm.list_modules() for name in timm.list_models(module=module)}
    return {name: names[name] for name in sorted(names) if timm.model_entrypoint(name).__module__.startswith("timm.")}


def in_turn(family: dict[str, str]) -> list[str]:
    """Names with the first of every family first, so that a stopped sweep has seen all kinds."""
    seen: Counter[str] = Counter()
    order = {}
    for name, module in family.items():
        order[name] = seen[module]
        seen[module] += 1
    return sorted(family, key=lambda name: order[name])


def run(name: str, size: Size, real: bool = False) -> FeaturePyramid:
    """Build and run at one size, on the meta device or in earnest; the maps must be what the pyramid declares."""
    with torch.no_grad(), nullcontext() if real else weightless():
        pyramid = attach(name, "mlfpn", image_size=size).eval()
        maps = pyramid(torch.empty(1, 3, *size))
    got = [(x.shape[1], (x.shape[2], x.shape[3])) for x in maps]
    declared = list(zip(pyramid.out_channels, pyramid.output_sizes(size)))
    if got != declared:
        raise RuntimeError(f"the maps are {got}, declared were {declared}")
    return pyramid


def run_somewhere(name: str, size: Size) -> FeaturePyramid:
    """Run on the meta device; in earnest the few models that read values of their tensors on the way."""
    try:
        return run(name, size)
    except (RuntimeError, ValueError) as error:
        if not needs_data(error):
            raise
    return run(name, size, real=True)


def examine(name: str) -> dict[str, Any]:
    """One row of the table: the size that worked and the maps that served, or the reason why none did."""
    start = time.perf_counter()
    reason = ""
    for size in SIZES:
        for _ in range(2):
            try:
                pyramid = run_somewhere(name, size)
            except Exception as error:  # a row of the table, whatever it is
                reason = reason or f"{type(error).__name__}: {error}".splitlines()[0]
                advice = ADVICE.search(str(error))
                if advice is None:
                    break
                size = (int(advice[1]), int(advice[2]))
                continue
            backbone = pyramid.backbone
            return {
                "name": name,
                "size": list(size),
                "taps": [[tap.stride, tap.channels] for tap in backbone.taps],
                "nhwc": any(tap.nhwc for tap in backbone.taps),
                "parameters": sum(p.numel() for p in backbone.body.parameters()),
                "seconds": round(time.perf_counter() - start, 2),
            }
    return {"name": name, "reason": reason, "seconds": round(time.perf_counter() - start, 2)}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows in Markdown, under a summary."""
    rows = list(rows)
    served = [row for row in rows if "size" in row]
    sizes = Counter("x".join(map(str, row["size"])) for row in served)
    lines = [
        "# MLFPN on every architecture of timm",
        "",
        f'`attach(name, "mlfpn")` builds and runs on {len(served)} of the {len(rows)} architectures of '
        f"timm {timm.__version__}: {sizes['320x512']} at 320x512, the others at the size given. "
        "All run on the meta device, but the few that read values of their tensors, which run on the CPU. "
        "A tap is the stride of the backbone's map and its channels; where it is not 8 and 16, the map is resampled.",
        "",
        "| architecture | family | size | taps, or why not |",
        "|---|---|---|---|",
    ]
    for row in rows:
        if "size" in row:
            taps = ", ".join(f"{stride} ({channels})" for stride, channels in row["taps"])
            lines.append(f"| {row['name']} | {row['family']} | {row['size'][0]}x{row['size'][1]} | {taps} |")
        else:
            lines.append(f"| {row['name']} | {row['family']} | none | {row['reason'].replace('|', ' ')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is still missing, in `--jobs` processes, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--partial", type=Path, default=Path("runs/timm_sweep.jsonl"), help="what is done so far")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--names", nargs="*", default=None, help="only these, again")
    args = parser.parse_args()
    args.partial.parent.mkdir(parents=True, exist_ok=True)
    lines = args.partial.read_text().splitlines() if args.partial.exists() else []
    done = {row["name"]: row for row in map(json.loads, lines)}
    family = families()
    todo = [name for name in in_turn(family) if name not in done] if args.names is None else args.names
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(args.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        args.partial.open("a") as file,
    ):
        for row in pool.imap_unordered(examine, todo):
            done[row["name"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
    rows = [{**done[name], "family": family[name]} for name in family]
    args.output.mkdir(parents=True, exist_ok=True)
    document = {"timm": timm.__version__, "torch": torch.__version__, "rows": rows}
    (args.output / "timm.json").write_text(json.dumps(document, indent=0) + "\n")
    (args.output / "timm.md").write_text(table(rows))


if __name__ == "__main__":
    main()
