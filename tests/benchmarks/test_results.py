"""Results files: whole, resumable, and refused where they do not fit."""

import json

import pytest
import torch

from benchmarks.command import Measurement, take_measurements
from benchmarks.results import SCHEMA, Results, read_results
from benchmarks.timing import compare, measure

CPU = torch.device("cpu")


def test_a_file_is_gone_on_with(tmp_path):
    Results(tmp_path, "necks", CPU, {"a": (1, 2)}).add("x", value=1)
    again = Results(tmp_path, "necks", CPU, {"a": [1, 2]})
    again.add("y", value=2)
    assert again.finished("x")
    assert [row["key"] for row in read_results(tmp_path / "necks.json")["rows"]] == ["x", "y"]


def test_a_file_says_where_it_comes_from(tmp_path):
    Results(tmp_path, "necks", CPU, {}).add("x")
    content = read_results(tmp_path / "necks.json")
    assert content["command"].startswith("python -m benchmarks")
    assert content["commit"]
    assert {"device", "python", "torch", "torchvision", "timm"} <= set(content["environment"])


def test_rows_say_which_other_commit_they_are_of(tmp_path, monkeypatch):
    for commit, key in (("one", "x"), ("two", "y"), ("one", "z")):
        monkeypatch.setattr("benchmarks.results._commit", lambda commit=commit: commit)
        Results(tmp_path, "necks", CPU, {}).add(key)
    content = read_results(tmp_path / "necks.json")
    assert content["commit"] == "one"
    assert content["rows"] == [{"key": "x"}, {"key": "y", "commit": "two"}, {"key": "z"}]


def set_instructions(monkeypatch, instructions):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: instructions)


def test_timings_of_two_instruction_sets_are_not_mixed(tmp_path, monkeypatch):
    set_instructions(monkeypatch, "AVX2")
    Results(tmp_path, "speed", CPU, {}).add("x", ms=1)
    set_instructions(monkeypatch, "AVX512")
    with pytest.raises(ValueError, match=r"other instructions: AVX2, not AVX512"):
        Results(tmp_path, "speed", CPU, {})
    assert read_results(tmp_path / "speed.json")["rows"] == [{"key": "x", "ms": 1}]


def test_rows_without_timings_say_of_which_other_instruction_set_they_are(tmp_path, monkeypatch):
    for instructions, key in (("AVX2", "x"), ("AVX512", "y"), ("AVX2", "z")):
        set_instructions(monkeypatch, instructions)
        Results(tmp_path, "ablation", CPU, {}, timed=False).add(key)
    content = read_results(tmp_path / "ablation.json")
    assert content["environment"]["instructions"] == "AVX2"
    assert content["rows"] == [{"key": "x"}, {"key": "y", "instructions": "AVX512"}, {"key": "z"}]


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path):
    Results(tmp_path, "necks", CPU, {"repeats": 3}).add("x", value=1)
    with pytest.raises(ValueError, match="other settings"):
        Results(tmp_path, "necks", CPU, {"repeats": 4})
    assert read_results(tmp_path / "necks.json")["rows"] == [{"key": "x", "value": 1}]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', "\x00\xff"])
def test_what_is_no_results_file_is_refused(tmp_path, text):
    (tmp_path / "necks.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="not a results file"):
        Results(tmp_path, "necks", CPU, {})
    assert (tmp_path / "necks.json").read_bytes() == text.encode("latin-1")


def test_an_older_schema_is_refused(tmp_path):
    Results(tmp_path, "necks", CPU, {}).add("x")
    content = json.loads((tmp_path / "necks.json").read_text())
    (tmp_path / "necks.json").write_text(json.dumps({**content, "schema": SCHEMA - 1}))
    with pytest.raises(ValueError, match=f"schema {SCHEMA - 1}: this version reads {SCHEMA}"):
        Results(tmp_path, "necks", CPU, {})


def test_finished_cells_are_not_run_again_and_failed_ones_are(tmp_path, capsys):
    runs = []

    def measurement(key, error=None):
        def take():
            runs.append(key)
            if error is not None:
                raise error
            return {"value": key}

        return Measurement(key, {"name": key}, take)

    results = Results(tmp_path, "x", CPU, {})
    take_measurements(
        results, [measurement("good"), measurement("bad", ValueError("too\nsmall")), measurement("late")], "x"
    )
    assert results.rows[1] == {"key": "bad", "name": "bad", "error": "too small"}
    assert "too small" in capsys.readouterr().err
    take_measurements(
        Results(tmp_path, "x", CPU, {}), [measurement("good"), measurement("bad"), measurement("late")], "x"
    )
    assert runs == ["good", "bad", "late", "bad"]
    assert not any("error" in row for row in read_results(tmp_path / "x.json")["rows"])


@pytest.mark.parametrize("columns", [{"epochs": 24}, {"epochs": 8, "images": [72, 20]}, {"epochs": 8, "lr": 1e-2}])
def test_a_finished_row_of_another_measurement_is_no_result(tmp_path, columns):
    """Neither its figures nor the new ones take the other's place in silence."""
    first = {"title": "M2Det", "epochs": 8, "images": (205, 72), "lr": 1e-3}
    take_measurements(Results(tmp_path, "x", CPU, {}), [Measurement("bccd", first, lambda: {"AP": 0.4})], "x")
    before = (tmp_path / "x.json").read_bytes()
    changed = list(columns)[-1]
    again = [Measurement("new", {}, lambda: {}), Measurement("bccd", columns, lambda: {"AP": 0.6})]
    with pytest.raises(ValueError, match=f"bccd in .* was measured with {changed} .*choose another --output"):
        take_measurements(Results(tmp_path, "x", CPU, {}), again, "x")
    assert (tmp_path / "x.json").read_bytes() == before


def test_a_finished_row_with_another_title_or_without_a_new_column_is_a_result(tmp_path):
    first = Measurement("bccd", {"title": "M2Det", "epochs": 8}, lambda: {"AP": 0.4})
    take_measurements(Results(tmp_path, "x", CPU, {}), [first], "x")
    again = Measurement("bccd", {"title": "MLFPN", "epochs": 8, "images": [205, 72]}, lambda: {"AP": 0.6})
    take_measurements(Results(tmp_path, "x", CPU, {}), [again], "x")
    assert [row["AP"] for row in read_results(tmp_path / "x.json")["rows"]] == [0.4]


def test_an_interrupted_run_keeps_what_is_finished(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    measurements = [Measurement("first", {}, lambda: {"value": 1}), Measurement("second", {}, interrupt)]
    with pytest.raises(KeyboardInterrupt):
        take_measurements(Results(tmp_path, "x", CPU, {}), measurements, "x")
    assert [row["key"] for row in read_results(tmp_path / "x.json")["rows"]] == ["first"]


def test_timings_rotate_over_inputs():
    seen = []
    timing = measure(seen.append, [(0,), (1,), (2,)], device=CPU, repeats=5, warmup=2)
    assert seen == [0, 1, 0, 1, 2, 0, 1]
    assert timing.repeats == 5
    assert 0 <= timing.lower_ms <= timing.median_ms <= timing.upper_ms


def test_a_comparison_takes_turns_on_the_same_input():
    seen = []
    timing, ratio = compare(
        lambda x: seen.append(("baseline", x)),
        lambda x: seen.append(("ours", x)),
        [(0,), (1,)],
        device=CPU,
        repeats=3,
        warmup=0,
    )
    assert seen[2:] == [(who, x) for x in (0, 1, 0) for who in ("baseline", "ours")]
    assert timing.repeats == 3
    assert ratio > 0
