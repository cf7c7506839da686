"""TensorBoard's files hold the figures, read back by the package's own record format; its absence is answered."""

import struct
import sys

import pytest

from nano_llama.core.errors import EnvironmentFault
from nano_llama.training.tensorboard import TensorBoardWriter, check_tensorboard


def events(folder):
    """Every event: records of length (8 bytes), checksum (4), protobuf, checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            found.append(Event.FromString(content[place + 12 : place + 12 + length]))
            place += length + 16
    return found


def test_figures_stand_at_their_steps(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = TensorBoardWriter(tmp_path)
    writer.write({"step": 5, "train_loss": 2.5, "lr": 0.125, "mfu": None, "tokens": 7})
    writer.write({"step": 10, "val_loss": 2.25})
    writer.close()
    seen = {(e.step, v.tag): v.simple_value for e in events(tmp_path) for v in e.summary.value}
    assert seen == {(5, "loss/train"): 2.5, (5, "update/learning_rate"): 0.125, (10, "loss/validation"): 2.25}


def test_a_run_that_goes_on_purges_what_came_later(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import SessionLog

    TensorBoardWriter(tmp_path, keep_to=40).close()
    assert [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START] == [41]


def test_its_absence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(EnvironmentFault) as error:
        check_tensorboard()
    assert "tensorboardX" in error.value.message and "[tensorboard]" in error.value.hint
