"""CUDA_VISIBLE_DEVICES, read as CUDA reads it, and --devices, over the GPUs that NVML lists."""

from __future__ import annotations

import pytest

from profiler import host, nvml
from profiler.engines import boards, gpus, vllm
from profiler.errors import InputError
from profiler.nvml.devices import Device
from profiler.settings import EngineSettings

PRESENT = (Device("GPU-aaaa", "A", 80), Device("GPU-abbb", "B", 80), Device("GPU-cccc", "C", 24))
SLICED = Device("GPU-dddd", "D", 80, (("MIG-1111", 10), ("MIG-2222", 20)))


@pytest.fixture(autouse=True)
def three(monkeypatch):
    monkeypatch.setattr(gpus, "_present", lambda: (PRESENT, None))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("names", "uuids"),
    [
        (None, ["GPU-aaaa", "GPU-abbb", "GPU-cccc"]),
        ("1,0", ["GPU-abbb", "GPU-aaaa"]),
        (" 2 ", ["GPU-cccc"]),
        ("GPU-cc", ["GPU-cccc"]),
        ("GPU-abbb,0", ["GPU-abbb", "GPU-aaaa"]),
        ("0,7,1", ["GPU-aaaa"]),
        ("-1,0", []),
        ("", []),
    ],
)
def test_visible_devices(names, uuids):
    env = {} if names is None else {"CUDA_VISIBLE_DEVICES": names}
    assert [uuid for uuid, _ in gpus.visible_gpus(env)] == uuids
    assert list(gpus.chosen_gpus((), env)) == uuids


def test_the_engines_environment_wins_over_ours(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus.visible_gpus()[0] == ("GPU-aaaa", 80)
    assert gpus.visible_gpus({"CUDA_VISIBLE_DEVICES": "2"}) == (("GPU-cccc", 24),)


def launched(kind="vllm", **more):
    return EngineSettings(kind=kind, **more)


@pytest.mark.parametrize(
    ("settings", "device", "uuids"),
    [
        (launched(), "cuda", ["GPU-aaaa"]),
        (launched(tensor_parallel=2), "cuda", ["GPU-aaaa", "GPU-abbb"]),
        (launched(args={"data-parallel-size": 2}), "cuda", ["GPU-aaaa", "GPU-abbb"]),
        (launched(env={"CUDA_VISIBLE_DEVICES": "2,1"}), "cuda", ["GPU-cccc"]),
        (launched(args={"data_parallel_size": "x"}), "cuda", ["GPU-aaaa", "GPU-abbb", "GPU-cccc"]),
        (launched("auto"), "cuda", ["GPU-aaaa"]),
        (launched(), "cpu", []),
        (launched("transformers"), "cpu", ["GPU-aaaa"]),
        (launched("simulated"), "cpu", ["GPU-aaaa", "GPU-abbb", "GPU-cccc"]),
    ],
)
def test_an_engine_takes_the_boards_it_needs_and_no_other(monkeypatch, settings, device, uuids):
    monkeypatch.setattr(vllm, "installed", lambda: vllm.Installed("1", device))
    assert list(boards(settings)) == uuids
    everything = [0, 1, 2]
    assert list(boards(settings, everything)) == ["GPU-aaaa", "GPU-abbb", "GPU-cccc"]


def test_devices_without_the_board_of_the_engine_are_refused(monkeypatch):
    monkeypatch.setattr(vllm, "installed", lambda: vllm.Installed("1", "cuda"))
    with pytest.raises(InputError, match=r"--devices 1: the engine runs on GPU-aaaa.*CUDA_VISIBLE_DEVICES"):
        boards(launched(), [1])
    assert boards(launched(env={"CUDA_VISIBLE_DEVICES": "1"}), [1]) == ("GPU-abbb",)
    assert boards(launched("simulated"), [1]) == ("GPU-abbb",)


@pytest.mark.parametrize(
    ("names", "gpu"),
    [
        ("MIG-2222", ("GPU-dddd", 20)),
        ("MIG-2", ("GPU-dddd", 20)),
        ("MIG-1111,MIG-2222", ("GPU-dddd", 10)),
        ("MIG-GPU-dddd/3/0", ("GPU-dddd", 10)),
        ("GPU-dddd", ("GPU-dddd", 80)),
        ("0", ("GPU-dddd", 10)),
    ],
)
def test_a_mig_device_is_its_board_with_its_own_memory(monkeypatch, names, gpu):
    monkeypatch.setattr(gpus, "_present", lambda: ((SLICED,), None))
    assert gpus.visible_gpus({"CUDA_VISIBLE_DEVICES": names}) == (gpu,)


@pytest.mark.parametrize(
    ("devices", "uuids"),
    [
        (("2", "0"), ("GPU-cccc", "GPU-aaaa")),
        (("GPU-abbb",), ("GPU-abbb",)),
        (("GPU-ab", "1"), ("GPU-abbb",)),
    ],
)
def test_devices_named_by_the_user_win(devices, uuids):
    assert gpus.chosen_gpus(devices, {"CUDA_VISIBLE_DEVICES": ""}) == uuids


@pytest.mark.parametrize("name", ["3", "GPU-x", "", "-1", "MIG-7"])
def test_an_unknown_device_is_an_input_error_that_says_what_is_there(name):
    with pytest.raises(
        InputError, match=rf"--devices {name}: no such GPU; here are 0 GPU-aaaa \(A\), 1 GPU-ab"
    ):
        gpus.chosen_gpus(("0", name))


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda description: monkeypatch.setenv(nvml.BOARDS_VARIABLE, description)


def test_simulated_boards_are_seen_by_engines_and_host_alike(simulated):
    simulated("a100:2")
    boards = host.collect().gpus
    assert [board.name for board in boards] == ["NVIDIA A100-SXM4-80GB (simulated)"] * 2
    assert gpus.visible_gpus() == tuple((board.uuid, board.memory_bytes) for board in boards)
    assert boards[0].memory_bytes == 80 << 30
    assert boards[0].power_limit_w == 400
    assert gpus.chosen_gpus(("1",)) == (boards[1].uuid,)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("h100?driver=mismatch", "NVML does not start (RM has detected an NVML/RM version mismatch.)"),
        ("h100?permission=denied", "NVML does not start (Insufficient Permissions)"),
        ("h100:0", "here are none"),
    ],
)
def test_why_there_are_no_gpus_is_said(simulated, description, why):
    simulated(description)
    assert gpus.visible_gpus() == ()
    assert host.collect().gpus == ()
    with pytest.raises(InputError) as caught:
        gpus.chosen_gpus(("0",))
    assert str(caught.value) == f"--devices 0: no such GPU; {why}"


def test_simulated_slices(simulated):
    simulated("h100?mig=2")
    board = host.collect().gpus[0].uuid
    assert gpus.visible_gpus() == ((board, 40 << 30),)
    assert gpus.chosen_gpus((f"MIG-1{board[5:]}",)) == (board,)


def test_a_description_that_cannot_be_read_is_an_input_error_everywhere(simulated):
    simulated("h10")
    for ask in (gpus.visible_gpus, host.collect, lambda: gpus.chosen_gpus(("0",))):
        with pytest.raises(InputError, match="PROFILER_SIMULATED_NVML=h10: no such boards"):
            ask()
