"""The run of everything on a GPU: its plan, what it says where there is none, and its time limits."""

import re
import signal

import pytest
import torch
import tyro

from benchmarks import gpu
from benchmarks.ablation import table_rows
from benchmarks.cli import COMMANDS, main
from benchmarks.experiment import RECIPES
from benchmarks.gpu import LEFT_OUT, Step, plan, run_step, time_limits
from detectors.cli import command_class


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Steps run in a folder of their own, with a module `step` that does what its argument says."""
    (tmp_path / "step.py").write_text(
        "import sys, time\n"
        "if sys.argv[1] == 'fail': sys.exit(3)\n"
        "print('begun', flush=True)\n"
        "try:\n"
        "    time.sleep(60 if sys.argv[1] == 'sleep' else 0)\n"
        "except KeyboardInterrupt:\n"
        "    open('saved', 'w').close()\n"
    )
    monkeypatch.setattr(gpu, "_ROOT", tmp_path)
    return tmp_path


def test_every_benchmark_is_in_the_plan_or_left_out_with_a_reason(tmp_path):
    names = [step.name for step in plan(tmp_path)]
    assert sorted([*names, *LEFT_OUT]) == sorted({*COMMANDS, "tests"} - {"gpu", "report"})
    assert names.index("ablation") < names.index("complexity") < names.index("activations")


def test_the_commands_of_the_plan_parse(tmp_path):
    for step in plan(tmp_path)[1:]:
        module, name, *options = step.command
        assert module == "benchmarks"
        command = tyro.cli(command_class("benchmarks", name), args=options)
        assert (command.budget, command.device, command.output) == ("gpu", "cuda", tmp_path)


def test_the_ablation_begins_with_the_rows_compared_most(tmp_path):
    [step] = [step for step in plan(tmp_path) if step.name == "ablation"]
    rows = list(step.command[step.command.index("--rows") + 1 :])
    assert rows[:4] == ["mlfpn", "pafpn-2", "fpn-2", "ssd"]
    assert sorted(rows) == sorted(row.key for row in table_rows(RECIPES["gpu"]))


def test_limits_fill_the_time():
    limits = time_limits(plan(gpu.Path("x")), 1140)
    assert sum(limits) == pytest.approx(1140)
    assert min(limits) >= gpu._GRACE_SECONDS + 30


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_a_dry_run_says_what_is_missing(capsys):
    assert main(["gpu", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^missing: a (CUDA GPU|torch with CUDA)", out, re.MULTILINE)
    assert "python -m pytest -m cuda tests" in out
    assert all(f"python -m benchmarks {step.name} --budget gpu" in out for step in plan(gpu.Path("x"))[1:])
    assert all(f"left out: {name}" in out for name in LEFT_OUT)


@pytest.mark.skipif(torch.cuda.is_available(), reason="refuses where there is no GPU")
def test_a_run_without_a_gpu_is_refused(capsys):
    assert main(["gpu"]) == 2
    assert "cannot run on a GPU here, for want of a" in capsys.readouterr().err


def test_what_comes_of_a_step(root):
    assert run_step(Step("a", ("step", "pass"), 1), 60).word == "finished"
    failed = run_step(Step("b", ("step", "fail"), 1), 60)
    assert (failed.word, failed.detail) == ("failed", "exit code 3")
    skipped = run_step(Step("c", ("step", "pass"), 1, root / "nothing"), 60)
    assert skipped.word == "skipped"
    assert "nothing" in skipped.detail


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def test_a_step_is_interrupted_at_its_limit_and_saves(root, handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert run_step(Step("a", ("step", "sleep"), 1), gpu._GRACE_SECONDS + 2).word == "stopped"
    finally:
        signal.signal(signal.SIGINT, before)
    assert (root / "saved").exists()


def test_all_steps_run_and_are_recorded(root, monkeypatch, capsys):
    steps = [Step("one", ("step", "pass"), 1), Step("two", ("step", "fail"), 2)]
    monkeypatch.setattr(gpu, "plan", lambda output: steps)
    monkeypatch.setattr(gpu, "missing", list)
    monkeypatch.setattr(gpu, "REPORT", Step("report", ("step", "pass"), 1))
    monkeypatch.setattr("benchmarks.results.device_name", lambda device: "A GPU")
    assert main(["gpu", "--output", str(root / "out"), "--minutes", "5"]) == 1
    rows = {row["key"]: row for row in gpu.Results(root / "out", "gpu", torch.device("cuda"), {}).rows}
    assert {name: row["word"] for name, row in rows.items()} == {"one": "finished", "two": "failed"}
    assert rows["one"]["limit"] == 80
    assert re.search(r"^report +finished", capsys.readouterr().out, re.MULTILINE)
