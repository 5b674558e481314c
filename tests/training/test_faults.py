"""Damaged checkpoints, full disks, places that cannot be written: a clear error, and a way on."""

import contextlib
import dataclasses
import functools
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import training

# TensorStore goes on reading when its first error has ended the reading, and finds nobody who waits.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def at(state: training.TrainState, step: int) -> training.TrainState:
    """As after so many updates, with values of that step."""
    params = jax.tree.map(lambda leaf: leaf + step, state.params)
    return dataclasses.replace(state, step=jnp.int32(step), params=params)


@pytest.fixture(scope="module")
def saved(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 1 (the best), 2 and 3."""
    folder = tmp_path_factory.mktemp("saved")
    with training.Checkpoints(folder, config={"way": 5}, fingerprints={"latin": "a1"}) as checkpoints:
        for step, accuracy in ((1, 0.9), (2, 0.4), (3, 0.5)):
            checkpoints.save(at(toy.state(), step), data_state={"next_index": step}, accuracy=accuracy)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def plain(state: training.TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def restore(toy: Any, folder: Path, **options: Any) -> training.Restored:
    with training.Checkpoints(folder, config={"way": 5}, fingerprints={"latin": "a1"}) as checkpoints:
        return checkpoints.restore(toy.state(seed=9), **options)


def assert_is_step(toy: Any, restored: training.Restored, step: int) -> None:
    assert restored.data_state == {"next_index": step}
    assert restored.accuracy == {1: 0.9, 2: 0.4, 3: 0.5}[step]
    for one, other in zip(plain(restored.state), plain(at(toy.state(), step)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_under_another_step_is_named(toy: Any, folder: Path) -> None:
    shutil.copytree(folder / "2", folder / "1000")
    with pytest.raises(
        training.DamagedCheckpointError, match=r"1000, got .*written as step 2, .*step 3 is whole"
    ):
        restore(toy, folder)
    with pytest.raises(training.DamagedCheckpointError, match=r"delete .*1000 to go on"):
        training.load_variables(folder, which="latest")
    with pytest.raises(training.DamagedCheckpointError, match=r"delete .*1000 to go on"):
        training.read_config(folder, which=1000)
    shutil.rmtree(folder / "1000")
    assert_is_step(toy, restore(toy, folder), 3)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "a bit flipped": lambda content: flipped(content, len(content) // 2),
    "zeros": lambda content: bytes(len(content)),
    "deleted": lambda content: None,
}


@contextlib.contextmanager
def damaged(path: Path, damage: Callable[[bytes], bytes | None]) -> Iterator[None]:
    """A file damaged, and put back afterwards."""
    content = path.read_bytes()
    if (other := damage(content)) is None:
        path.unlink()
    else:
        path.write_bytes(other)
    yield
    path.write_bytes(content)


def found(toy: Any, folder: Path) -> bool:
    """Whether damage of step 3 is found; what is not found must have changed nothing."""
    try:
        restored = restore(toy, folder)
        variables = training.load_variables(folder, which=3)
    except training.DamagedCheckpointError as error:
        offer = f"step 2 is whole, delete {folder / '3'} to go on from it"
        assert str(error).startswith(f"expected the checkpoint as it was written in {folder / '3'}, got ")
        assert str(error).endswith(offer)
        return True
    assert_is_step(toy, restored, 3)
    for one, other in zip(
        jax.tree.leaves(variables), jax.tree.leaves(at(toy.state(), 3).variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    return False


@pytest.mark.slow
def test_every_damage_of_every_file_is_found_or_changes_nothing(toy: Any, folder: Path) -> None:
    files = sorted(path for path in (folder / "3").rglob("*") if path.is_file())
    seen: dict[str, set[str]] = {name: set() for name in DAMAGES}
    for path in files:
        for name, damage in DAMAGES.items():
            with damaged(path, damage):
                if found(toy, folder):
                    seen[name].add(path.relative_to(folder / "3").parts[0])
    assert all(parts == {"about", "state"} for parts in seen.values())
    assert_is_step(toy, restore(toy, folder), 3)  # all of it is as it was


@pytest.mark.parametrize("which", ["arrays", "about"])
def test_a_flipped_bit_is_found_wherever_it_is(toy: Any, folder: Path, which: str) -> None:
    # Small arrays stand in the index of the data base, which has a checksum of its own.
    (arrays,) = (folder / "3" / "state" / "d").iterdir()
    path = {"arrays": arrays, "about": folder / "3" / "about" / "metadata"}[which]
    positions = np.random.default_rng(0).integers(0, path.stat().st_size, 12)
    for position in positions.tolist():
        with damaged(path, functools.partial(flipped, position=position)):
            assert found(toy, folder), position


def test_the_older_checkpoint_is_taken_as_offered(toy: Any, folder: Path) -> None:
    for path in (folder / "3" / "state").rglob("d/*"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(training.DamagedCheckpointError, match="step 2 is whole"):
        restore(toy, folder)
    assert_is_step(toy, restore(toy, folder, which="best"), 1)
    shutil.rmtree(folder / "3")
    assert_is_step(toy, restore(toy, folder), 2)


def test_what_is_offered_is_whole_itself(toy: Any, folder: Path) -> None:
    for step in (2, 3):
        (folder / str(step) / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(training.DamagedCheckpointError, match="step 1 is whole"):
        restore(toy, folder)
    (folder / "1" / "about" / "metadata").unlink()
    with pytest.raises(
        training.DamagedCheckpointError, match=f"no other one there is whole, delete {folder} to"
    ):
        training.load_variables(folder)


def test_a_checkpoint_without_digests_is_refused(toy: Any, folder: Path) -> None:
    path = folder / "3" / "about" / "metadata"
    path.write_text(path.read_text().replace('"digest"', '"nothing"'))
    with pytest.raises(training.DamagedCheckpointError, match="as earlier versions of jxai wrote it"):
        training.read_config(folder)


@functools.cache
def compiled(toy: Any) -> training.PmappedStep:
    return training.pmap_step(training.make_step(toy.loss, toy.optimizer), devices=jax.local_devices()[:1])


def fit(
    toy: Any, folder: Path, number: int = -1, happens: Callable[[], Any] = lambda: None
) -> training.FitResult:
    """Trains six steps, with a checkpoint every two; something happens before a batch, between two savings."""
    with training.Checkpoints(folder) as checkpoints:
        batches = toy.batches()

        class Meanwhile:
            get_state, set_state = batches.get_state, batches.set_state

            def __next__(self) -> Any:
                if batches.next_index == number:
                    checkpoints.wait()
                    happens()
                return next(batches)

        return training.fit(
            compiled(toy),
            toy.state(),
            Meanwhile(),
            num_steps=6,
            eval_every=2,
            checkpoints=checkpoints,
            progress=False,
        )


@contextlib.contextmanager
def small_files() -> Iterator[Callable[[], None]]:
    """Gives what makes every write beyond the first 2000 bytes of a file fail, until the context ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_goes_on_from(toy: Any, folder: Path, step: int) -> None:
    """The older checkpoint is whole, and training ends as one that never failed."""
    with training.Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == step
        checkpoints.restore(toy.state())
    resumed = fit(toy, folder).state
    straight = fit(toy, folder.with_name("straight")).state
    for one, other in zip(plain(resumed), plain(straight), strict=True):
        np.testing.assert_array_equal(one, other)


WRITING = r"expected to write checkpoints in {}, got .*: give a folder that can be written, with space"


def test_writing_that_fails_in_the_background_ends_training(toy: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with small_files() as begin, pytest.raises(OSError, match=WRITING.format(folder)):
        fit(toy, folder, 3, begin)
    assert_goes_on_from(toy, folder, 2)


def test_a_save_alone_that_fails_is_noticed_at_the_end(toy: Any, tmp_path: Path) -> None:
    checkpoints = training.Checkpoints(tmp_path)
    with small_files() as begin:
        begin()
        checkpoints.save(toy.state())
        with pytest.raises(OSError, match=WRITING.format(tmp_path)):
            checkpoints.close()


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A mount for the time of the context; a test where it is not allowed is skipped."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk(toy: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"

    def fill() -> None:
        with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    with mounted(disk, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        with pytest.raises(OSError, match=r"expected to write checkpoints in .*No space left on device"):
            fit(toy, disk / "run", 5, fill)
        (disk / "other").unlink()
        assert_goes_on_from(toy, disk / "run", 4)


def test_a_read_only_folder(toy: Any, folder: Path) -> None:
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        assert_is_step(toy, restore(toy, folder), 3)  # to read is enough
        checkpoints = training.Checkpoints(folder)
        with pytest.raises(OSError, match=r"expected to write checkpoints in .*Read-only file system"):
            checkpoints.save(at(toy.state(), 4))
        checkpoints.close()
        with pytest.raises(OSError, match=r"expected to write metrics to .*Read-only file system"):
            training.MetricsWriter(folder / "metrics.jsonl").write({"loss": 1.0}, step=1)
    assert_is_step(toy, restore(toy, folder), 3)


def test_two_trainings_in_one_folder(toy: Any, tmp_path: Path) -> None:
    program = """
import sys
from jxai import training
with training.Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.claim()
    print("mine", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(
            BlockingIOError, match=rf"expected a folder .*, in use by process {other.pid} on "
        ):
            fit(toy, tmp_path)
        with training.Checkpoints(tmp_path) as reading:
            assert reading.latest_step() is None
        other.kill()
    assert fit(toy, tmp_path).state.step == 6


def test_a_training_that_ended_between_opening_and_claiming(toy: Any, tmp_path: Path) -> None:
    with training.Checkpoints(tmp_path) as early:
        fit(toy, tmp_path)
        with pytest.raises(BlockingIOError, match=r"when it was opened, \[\], got \[4, 6\]: .*open it again"):
            early.claim()


def test_a_training_that_has_ended_is_nobodys(toy: Any, tmp_path: Path) -> None:
    fit(toy, tmp_path)
    with training.Checkpoints(tmp_path) as other:
        other.claim()
        assert fit(toy, tmp_path).state.step == 6


def test_what_a_killed_process_left_half_written_goes(toy: Any, tmp_path: Path) -> None:
    half = tmp_path / "3.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "arrays").write_text("")
    fit(toy, tmp_path)
    assert not half.exists()


def test_a_checkpoint_that_goes_while_it_is_read(
    toy: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = training.Checkpoints._read_about

    def removed(self: training.Checkpoints, step: int) -> dict[str, Any]:
        shutil.rmtree(folder / "2", ignore_errors=True)  # by the training that goes on
        return read(self, step)

    monkeypatch.setattr(training.Checkpoints, "_read_about", removed)
    assert_is_step(toy, restore(toy, folder), 3)
    with pytest.raises(FileNotFoundError, match=r"expected 'latest', 'best' or one of the steps \[1, 3\]"):
        restore(toy, folder, which=2)


def test_processes_that_see_different_folders(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with training.Checkpoints(tmp_path) as checkpoints, monkeypatch.context() as two:
        two.setattr(jax, "process_count", lambda: 2)
        two.setattr("jxai.training.runs._of_all_processes", lambda number: np.array([number, 4]))
        with pytest.raises(ValueError, match=r"expected checkpoints that every process sees .* steps -1, 4 "):
            training.fit(
                compiled(toy),
                toy.state(),
                toy.batches(),
                num_steps=6,
                checkpoints=checkpoints,
                progress=False,
            )


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=WRITING.format(place)):
            training.Checkpoints(place)
        with pytest.raises(OSError, match=f"expected to write metrics to {place}"):
            training.MetricsWriter(place / "metrics.jsonl")


def test_metrics_that_do_not_fit(tmp_path: Path) -> None:
    writer = training.MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"loss": 1.0}, step=1)
    with small_files() as begin, pytest.raises(OSError, match=f"expected to write metrics to {writer.path}"):
        begin()
        for step in range(2, 100):
            writer.write({"loss": 0.5}, step=step)
    kept = training.read_metrics(writer.path)
    assert 10 < len(kept) < 99
    writer.resume(5)
    assert training.read_metrics(writer.path) == kept[:5]
