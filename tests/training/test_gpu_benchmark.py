"""The benchmark for GPUs takes the same way on a processor, and says what it did."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "benchmarks/gpu.py", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_tiny_run_on_the_processor_fills_the_table(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    tiny = ("--device", "cpu", "--batches", "2", "--batch-size", "8", "--out", str(file))
    said = run("fs", "dae", *tiny)
    assert said.returncode == 0, said.stderr
    text = file.read_text()
    assert text in said.stdout
    assert f"torch {torch.__version__}" in text
    assert "peak of a matrix product in this run" in text
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[2:]]
    assert [row[0] for row in cells] == ["model", "---", "fs", "dae"]
    assert [row[1] for row in cells[2:]] == ["37,825,860", "45,270,016"]
    for row in cells[2:]:
        milliseconds, rate, tflops = (float(row[at].replace(",", "")) for at in (4, 5, 6))
        # Rounded as they are printed.
        assert rate == pytest.approx(8e3 / milliseconds, rel=0.2, abs=1)
        # Two operations a weight forward, four backward, but for the first layer's input.
        parameters = int(row[1].replace(",", ""))
        assert tflops == pytest.approx(6 * parameters * rate / 1e12, rel=0.25)
        assert re.fullmatch(r"\d+% of [\d.]+", row[7])


@pytest.mark.slow
@pytest.mark.ray
def test_it_goes_through_ray_as_well() -> None:
    tiny = ("--device", "cpu", "--batches", "2", "--batch-size", "8", "--peak-tflops", "0.5")
    said = run("fs", "--ray", *tiny)
    assert said.returncode == 0, said.stderr
    assert "peak given" in said.stdout
    last = said.stdout.strip().splitlines()[-1].split("|")
    assert "of 0.5" in last[8]
    assert float(last[10].replace(",", "")) > 0


@pytest.mark.slow
def test_what_it_cannot_do_is_said() -> None:
    assert "--peak-tflops" in run("--help").stdout
    unknown = run("vgg", "--device", "cpu")
    assert unknown.returncode == 2
    assert "no model vgg; there are fs, spender, dae, unet" in unknown.stderr
    if not torch.cuda.is_available():
        none = run("fs")
        assert none.returncode == 2
        assert "PyTorch sees no GPU; --device cpu takes the same way" in none.stderr
