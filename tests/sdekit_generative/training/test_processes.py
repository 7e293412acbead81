"""Training in two processes, started as a person would start them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sdekit_generative.errors import RunError
from sdekit_generative.run import Run, load
from sdekit_generative.samplers import ODE
from sdekit_generative.sampling import generate
from sdekit_generative.training import Processes, checkpoint
from sdekit_generative.training.processes import check_count

ROOT = Path(__file__).resolve().parents[3]
TINY = [
    "--set=network.channels=8",
    "--set=network.multipliers=1,2",
    "--set=network.attention=1",
    "--set=network.dropout=0.1",  # the masks, too, belong to samples
    "--set=training.save_every=4",
    "--set=training.cooldown=0",
    "--batch=8",
    "--device=cpu",
]
ALONE = [sys.executable, "-m", "sdekit_generative", "train"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *ALONE[1:]]


def _start(command: list) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(c) for c in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish(command: list) -> tuple[int, str, str]:
    process = _start(command)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _made(command: list) -> str:
    code, out, err = _finish(command)
    assert code == 0, err
    return out


def _gap(a: Path, b: Path) -> float:
    """The largest difference of any weight, average or moment."""
    ours, theirs = (checkpoint.read(checkpoint.latest(run / "checkpoints")) for run in (a, b))
    assert ours.state["steps_done"] == theirs.state["steps_done"]
    return max(
        float((tensor - theirs.tensors[group][name]).abs().max())
        for group, tensors in ours.tensors.items()
        for name, tensor in tensors.items()
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert "training in 1 process on cpu" in _made([*ALONE, "digits", *TINY, "--steps=12", "--out", folder])
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    out = _made([*TWO, "digits", *TINY, "--steps=12", "--processes=2", "--out", folder])
    assert out.count("training in 2 processes (gloo) on cpu, 4 images each") == 1
    return folder


def test_two_processes_train_to_the_weights_of_one(alone, two):
    assert _gap(alone, two) < 1e-6
    ours, theirs = Run.open(alone).log(), Run.open(two).log()
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True)) < 1e-5


def test_what_two_processes_trained_samples_the_same_images(alone, two):
    ours, theirs = (generate(load(run), 4, ODE(), seed=3) for run in (alone, two))
    assert float((ours - theirs).abs().max()) < 1e-3


@pytest.mark.slow
def test_weights_split_over_two_processes_become_those_of_one(alone, tmp_path):
    folder = tmp_path / "run"
    looks = ["--set=training.measure_every=3", "--set=training.sample_every=5"]
    _made([*TWO, "digits", *TINY, *looks, "--set=training.shard=true", "--steps=7", "--out", folder])
    assert [row["step"] for row in Run.open(folder).log() if "held_out_loss" in row] == [3, 6]
    assert (folder / "samples/step-00000005.png").exists()
    _made([*TWO, "--resume", folder, "--device=cpu", "--steps=12"])
    assert _gap(alone, folder) < 1e-6


@pytest.mark.slow
def test_a_run_may_go_on_in_another_number_of_processes(alone, tmp_path):
    folder = tmp_path / "run"
    _made([*ALONE, "digits", *TINY, "--out", folder, "--steps=5"])
    code, _, err = _finish([*TWO, "--resume", folder, "--device=cpu", "--steps=12"])
    assert code == 0, err
    assert "note: begun with 1 processes" in err
    assert _gap(alone, folder) < 1e-6


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(alone, tmp_path):
    folder = tmp_path / "run"
    process = _start([*TWO, "digits", *TINY, "--steps=100000", "--out", folder])
    log = folder / "log.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    done = Run.open(folder).log()[-1]["step"]
    assert f"stopped at step {done}, saved" in out
    assert checkpoint.latest(folder / "checkpoints").name == f"step-{done:08d}"


@pytest.mark.slow
def test_what_one_process_cannot_do_ends_all_with_its_words_and_no_traceback(alone):
    code, _, err = _finish([*TWO, "digits", *TINY, "--out", alone])
    assert code != 0
    said = [line for line in err.splitlines() if line.startswith("sdekit-generative: error: ")]
    # Each process says it, unless torchrun ends it first because another has already ended.
    assert len(said) in (1, 2)
    assert all("holds another run" in line for line in said)
    assert "rank0" not in err
    assert "rank1" not in err


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_without_a_hang(tmp_path, killed):
    folder = tmp_path / "run"
    process = _start([*TWO, "digits", *TINY, "--steps=100000", "--out", folder])
    log = folder / "log.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[killed]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    checkpoint.read(checkpoint.latest(folder / "checkpoints"))


def test_a_wrong_number_of_processes_is_refused_before_anything_is_written(capsys, tmp_path, monkeypatch):
    from sdekit_generative.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--processes=2"]) == 2
    said = capsys.readouterr().err
    assert "2 processes were asked for, but 1 was started; start with: torchrun --nproc_per_node=2" in said
    assert list(tmp_path.iterdir()) == []
    for name, value in {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}.items():
        monkeypatch.setenv(name, value)
    check_count(None)
    check_count(4)
    with pytest.raises(RunError, match="2 processes were asked for, but 4 were started"):
        check_count(2)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    assert [Processes(rank, 4).part(12) for rank in range(4)] == [(0, 3), (3, 3), (6, 3), (9, 3)]
    with pytest.raises(RunError, match="13 images a step cannot be shared evenly by 4 processes"):
        Processes(0, 4).part(13)


def test_another_global_batch_is_refused_on_resuming(capsys, alone):
    from sdekit_generative.cli import main

    threads = torch.get_num_threads()
    assert main(["train", "--resume", str(alone), "--batch=16"]) == 2
    assert "training.batch is 8 in this run and cannot become 16 half-way" in capsys.readouterr().err
    torch.set_num_threads(threads)
