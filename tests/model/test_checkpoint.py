import json
import os
import signal
import time
from contextlib import suppress

import pytest
import torch
from safetensors.torch import save_file

from qlib_ext.checks import UserError
from qlib_ext.model import checkpoint
from qlib_ext.model.checkpoint import CheckpointFolder, TrainingState, load, save

CPU = torch.device("cpu")


def state(epoch=3):
    generator = torch.Generator().manual_seed(epoch)
    return TrainingState(
        epoch=epoch,
        tensors={
            "network": {
                "backbone.rnn.weight": torch.randn(3, 4, generator=generator),
                "norm.num_batches_tracked": torch.tensor(7),
                "half": torch.randn(5, generator=generator).bfloat16(),
                "transposed": torch.randn(3, 2, generator=generator).T,
            },
            "optimizer": {
                "0/step": torch.tensor(12.0),
                "0/exp_avg": torch.tensor([float("nan"), -0.0, 1e-40]),
            },
            "balancer": {},
            "random": checkpoint.random_state(CPU),
        },
        values={
            "history": [{"epoch": 0, "valid/ic": 0.1 + 0.2, "valid/score": float("nan")}],
            "best_score": float("-inf"),
            "balancer": {"converge_rate": {"score": 1 / 3}},
        },
    )


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().flatten().view(torch.uint8).tolist()


def assert_same(one, other):
    assert one.epoch == other.epoch
    for group in set(one.tensors) | set(other.tensors):
        ones, others = one.tensors.get(group, {}), other.tensors.get(group, {})
        assert {name: bits(x) for name, x in ones.items()} == {name: bits(x) for name, x in others.items()}
    assert json.dumps(one.values) == json.dumps(other.values)


class TestFile:
    def test_round_trip_bit_for_bit(self, tmp_path):
        path = tmp_path / "deep" / "er" / "1.safetensors"
        save(path, state())
        assert_same(load(path), state())
        assert [x.name for x in path.parent.iterdir()] == ["1.safetensors"]

    def test_tensors_that_share_memory(self, tmp_path):
        shared = torch.arange(4.0)
        path = tmp_path / "1.safetensors"
        save(path, TrainingState(1, {"network": {"a": shared, "b": shared[:2]}}))
        found = load(path).tensors["network"]
        assert found["a"].tolist() == [0, 1, 2, 3]
        assert found["b"].tolist() == [0, 1]

    def test_replaces_the_one_before(self, tmp_path):
        path = tmp_path / "1.safetensors"
        save(path, state(1))
        save(path, state(2))
        assert_same(load(path), state(2))

    @pytest.mark.parametrize("moment", ["before a byte", "half way", "before the move"])
    def test_a_crash_while_writing_leaves_the_one_before(self, tmp_path, monkeypatch, moment):
        path = tmp_path / "1.safetensors"
        save(path, state(1))
        before = path.read_bytes()

        def crash(tensors, file, metadata):
            if moment != "before a byte":
                save_file(tensors, file, metadata=metadata)
            if moment == "half way":
                file.write_bytes(file.read_bytes()[:100])
            raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "save_file", crash)
        with pytest.raises(KeyboardInterrupt):
            save(path, state(2))
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("length", [0, 7, 100, -1])
    def test_a_truncated_file(self, tmp_path, length):
        path = tmp_path / "1.safetensors"
        save(path, state())
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(UserError, match=r"1.safetensors cannot be read .*: delete it, or start afresh"):
            load(path)

    def test_a_file_of_something_else(self, tmp_path):
        path = tmp_path / "weights.safetensors"
        save_file({"a": torch.zeros(1)}, path)
        with pytest.raises(UserError, match=r"weights.safetensors cannot be read"):
            load(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match=r"none.safetensors cannot be read"):
            load(tmp_path / "none.safetensors")

    def test_another_format(self, tmp_path, monkeypatch):
        path = tmp_path / "1.safetensors"
        monkeypatch.setattr(checkpoint, "FORMAT", 7)
        save(path, state())
        monkeypatch.undo()
        with pytest.raises(UserError, match="has format 7, expected 2: start afresh without RESUME"):
            load(path)

    def test_one_of_an_older_version_serves_and_is_told(self, tmp_path, caplog):
        path = tmp_path / "1.safetensors"
        given = state()
        flat = {
            f"{group}/{name}": x.contiguous()
            for group, named in given.tensors.items()
            for name, x in named.items()
        }
        header = {"format": 1, "epoch": given.epoch, "values": given.values}
        save_file(flat, path, metadata={"state": json.dumps(header)})
        assert_same(load(path), given)
        assert "is of an older version and has no checksum" in caplog.text

    def test_a_bit_that_turns_is_noticed_wherever_it_lies(self, tmp_path):
        """Most of a checkpoint is numbers: safetensors reads them as they lie, right or wrong."""
        path = tmp_path / "1.safetensors"
        small = TrainingState(2, {"network": {"w": torch.arange(3.0)}}, {"best_score": 0.5})
        save(path, small)
        whole = path.read_bytes()
        unnoticed = []
        for byte in range(len(whole)):
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << byte % 8
            path.write_bytes(damaged)
            with suppress(UserError):
                load(path)
                unnoticed.append(byte)
        assert not unnoticed

    def test_one_of_another_configuration(self, tmp_path):
        path = tmp_path / "one" / "1.safetensors"
        save(path, state())
        path.parent.rename(tmp_path / "other")
        with pytest.raises(
            UserError, match="belongs to the configuration one, not to that of its folder: move it back"
        ):
            load(tmp_path / "other" / path.name)


class TestClaim:
    """One process at a time trains a checkpoint; the other one is a fork here."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = CheckpointFolder(tmp_path, {"seed": 0})
        save(folder.new_path(), state())
        return folder

    @pytest.fixture
    def other(self, folder):
        """A process that has taken the checkpoint up, and ends only by `kill -9`."""
        done, tell = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                folder.newest_unfinished(lambda state: False)
                os.write(tell, b"1")
                time.sleep(60)
            finally:
                os._exit(0)
        os.read(done, 1)
        yield process
        with suppress(ProcessLookupError, ChildProcessError):
            self.end(process)

    @staticmethod
    def end(process):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)

    def test_the_second_is_told_who_trains_it(self, folder, other):
        with pytest.raises(
            UserError, match=rf"^process {other} on .* trains the checkpoint .*start again with RESUME=1$"
        ):
            folder.newest_unfinished(lambda state: False)

    def test_a_kill_leaves_it_to_the_next(self, folder, other):
        self.end(other)
        assert folder.newest_unfinished(lambda state: False) is not None

    def test_a_run_that_has_just_begun_is_no_other_ones_either(self, folder, other):
        """It trains afresh, on a checkpoint of its own."""
        with checkpoint.claimed(folder.new_path()):
            pass

    def test_what_a_kill_before_the_first_checkpoint_left_goes(self, folder):
        left, held = folder.new_path(), folder.new_path()
        left.with_suffix(".lock").write_text("1 elsewhere")
        with checkpoint.claimed(held):
            folder.newest_unfinished(lambda state: False)
            assert held.with_suffix(".lock").exists()
        assert not left.with_suffix(".lock").exists()
        checkpoint.leave(held)

    def test_the_same_process_may_go_on(self, folder):
        path, _ = folder.newest_unfinished(lambda state: False)
        assert folder.newest_unfinished(lambda state: False)[0] == path
        assert path.with_suffix(".lock").exists()
        checkpoint.close(path)
        assert not path.with_suffix(".lock").exists()

    def test_an_error_leaves_it(self, folder):
        path = folder.new_path()
        with pytest.raises(KeyboardInterrupt), checkpoint.claimed(path):
            raise KeyboardInterrupt
        assert not path.with_suffix(".lock").exists()

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        message = r"no checkpoint can be written to .*another `checkpoint_dir`"
        with (
            pytest.raises(UserError, match=message),
            checkpoint.claimed(tmp_path / "file" / "1.safetensors"),
        ):
            raise AssertionError


class TestRandomState:
    def test_goes_on_where_it_was(self, tmp_path):
        torch.manual_seed(0)
        torch.rand(3)
        save(tmp_path / "1.safetensors", TrainingState(1, {"random": checkpoint.random_state(CPU)}))
        expected = torch.rand(5), torch.randn(5)
        checkpoint.set_random_state(load(tmp_path / "1.safetensors").tensors["random"], CPU)
        assert torch.equal(torch.rand(5), expected[0])
        assert torch.equal(torch.randn(5), expected[1])


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        return CheckpointFolder(tmp_path, {"seed": 0})

    def test_none_yet(self, folder):
        assert folder.newest_unfinished(lambda state: False) is None

    def test_a_new_path_is_the_newest(self, folder):
        paths = [folder.new_path() for _ in range(3)]
        assert paths == sorted(paths)
        assert len(set(paths)) == 3

    def test_takes_the_newest(self, folder):
        for epoch in (3, 1, 2):
            save(folder.new_path(), state(epoch))
        _, found = folder.newest_unfinished(lambda state: False)
        assert_same(found, state(2))

    def test_passes_over_those_that_are_finished_and_closed(self, folder):
        paths = {}
        for epoch in (3, 1, 5):
            paths[epoch] = folder.new_path()
            save(paths[epoch], state(epoch))
            checkpoint.close(paths[epoch])
        path, found = folder.newest_unfinished(lambda state: state.epoch >= 3)
        assert path == paths[1]
        assert found.epoch == 1
        assert folder.newest_unfinished(lambda state: True) is None

    def test_a_finished_training_whose_run_fell_is_not_passed_over(self, folder):
        path = folder.new_path()
        save(path, state(3))
        assert folder.newest_unfinished(lambda state: True)[0] == path
        checkpoint.close(path)
        assert folder.newest_unfinished(lambda state: True) is None
        checkpoint.reopen(path)
        checkpoint.reopen(path)  # nothing to do
        assert folder.newest_unfinished(lambda state: True)[0] == path

    def test_the_newest_is_not_passed_over_because_it_is_broken(self, folder):
        save(folder.new_path(), state(1))
        broken = folder.new_path()
        broken.write_bytes(b"half")
        with pytest.raises(UserError, match=f"{broken.name} cannot be read"):
            folder.newest_unfinished(lambda state: False)

    def test_what_a_killed_run_left_is_no_checkpoint(self, folder):
        path = folder.new_path()
        save(path, state())
        path.with_suffix(".123.part").write_bytes(b"half")
        assert folder.newest_unfinished(lambda state: False)[0] == path

    def test_and_it_goes_after_a_day(self, folder):
        path = folder.new_path()
        save(path, state())
        old, new = (path.with_suffix(f".{pid}.part") for pid in (1, 2))
        for part in (old, new):
            part.write_bytes(b"half")
        os.utime(old, (0, time.time() - 25 * 3600))
        folder.newest_unfinished(lambda state: False)
        assert sorted(folder.folder.glob("*.[ps]a*")) == [new, path]

    def test_the_folder_belongs_to_the_configuration(self, tmp_path):
        identity = {"backbone": {"class": "LSTM", "kwargs": {"hidden_size": 64}}, "seed": 0, "data": "abc"}
        key = CheckpointFolder(tmp_path, identity).key
        turned = {name: identity[name] for name in reversed(identity)}
        assert CheckpointFolder(tmp_path, turned).key == key
        others = [
            {**identity, "seed": 1},
            {**identity, "data": "abd"},
            {**identity, "backbone": {"class": "LSTM", "kwargs": {"hidden_size": 65}}},
            {**identity, "backbone": {"class": "GRU", "kwargs": {"hidden_size": 64}}},
            {**identity, "more": None},
            {name: value for name, value in identity.items() if name != "seed"},
        ]
        keys = {CheckpointFolder(tmp_path, other).key for other in others}
        assert len(keys | {key}) == len(others) + 1
        assert all(len(key) == 16 for key in keys)

    def test_a_home_is_found(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert CheckpointFolder("~/runs", {}).folder.parent == tmp_path / "runs"
