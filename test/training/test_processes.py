from datetime import timedelta

import pytest
import torch
import torch.distributed
from two_processes import hear, in_two_processes

from superpoint_training.processes import Processes, processes


def test_workers_are_shared_out_on_a_machine() -> None:
    eight = Processes(0, 16, torch.device("cpu"), local=8)
    assert [eight.share(workers) for workers in (0, 4, 14, 64)] == [0, 1, 1, 8]


def test_processes_wait_for_one_that_extracts_bags_for_hours(monkeypatch) -> None:
    """torch's own limit, half an hour for gloo and ten minutes for NCCL, would end the run."""
    given = {}
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **options: given.update(options))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with processes("cpu") as here:
        assert (here.rank, here.world, here.local) == (1, 2, 2)
    assert given["timeout"] >= timedelta(hours=12)


def test_all_processes_hear_what_the_first_one_says() -> None:
    in_two_processes(hear)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="expected auto, cpu or cuda"), processes("tpu"):
        pass
