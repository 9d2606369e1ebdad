"""Where the blocks of a model lie, and the arithmetic of why they do not fit. Plain numbers; no model, no device."""

from __future__ import annotations

import itertools
import random

import pytest

from modelyard.devices import HOST, WHOLE, Block, Placement, place
from modelyard.errors import DeviceOom

GIB = 2**30


def blocks(*sizes: float) -> list[Block]:
    return [Block((f"layers.{number}",), int(size * GIB)) for number, size in enumerate(sizes)]


def sizes_on(placement: Placement, given: list[Block]) -> dict[str, int]:
    size_of = {name: block.size if name == block.names[0] else 0 for block in given for name in block.names}
    return {device: sum(size_of[name] for name in names) for device, names in placement.devices.items()}


@pytest.mark.parametrize(("size", "device", "room"), [(1, "cuda:0", 3), (2, "cuda:1", 40)])
def test_a_model_lies_whole_on_the_first_device_that_it_fits(size: int, device: str, room: int) -> None:
    placed = place(blocks(size, size, size), {"cuda:0": 3 * GIB, "cuda:1": 40 * GIB})
    assert placed.devices == {device: (WHOLE,)}
    assert not placed.parted
    assert placed.reason == f"{3 * size} GiB fit the {room} GiB of {device}"


def test_a_larger_one_goes_evenly_over_all_in_the_order_of_its_blocks() -> None:
    placed = place(blocks(*[1] * 6), {"cuda:0": 5 * GIB, "cuda:1": 5 * GIB, "cuda:2": 5 * GIB})
    assert list(placed.devices.values()) == [("layers.0", "layers.1"), ("layers.2", "layers.3"), ("layers.4", "layers.5")]
    assert placed.parted
    assert placed.reason == ("6 GiB fit no single one of 5 GiB (cuda:0) + 5 GiB (cuda:1) + 5 GiB (cuda:2): spread over them, at most 40 % of each")


def test_devices_of_unequal_size_are_filled_alike() -> None:
    placed = place(blocks(*[1] * 9), {"cuda:0": 4 * GIB, "cuda:1": 8 * GIB})
    assert [len(names) for names in placed.devices.values()] == [3, 6]


def test_what_shares_memory_stays_together() -> None:
    tied = [Block(("embed", "head"), GIB), *blocks(1, 1, 1)]
    placed = place(tied, {"cuda:0": 2 * GIB, "cuda:1": 2 * GIB})
    assert placed.devices == {"cuda:0": ("embed", "head", "layers.0"), "cuda:1": ("layers.1", "layers.2")}


def test_without_a_place_the_arithmetic_and_the_next_command_are_said() -> None:
    with pytest.raises(DeviceOom) as raised:
        place(blocks(3, 5, 3), {"cuda:0": 4 * GIB, "cuda:1": 5 * GIB})
    error = raised.value
    assert error.why == ("it takes 11 GiB in 3 blocks, the largest, layers.1, 5 GiB; there are 4 GiB (cuda:0) + 5 GiB (cuda:1): 3 GiB are left over")
    # Devices of 4 GiB cannot hold the block of 5, however many there are.
    assert error.remedy == "accelerators with more memory, or cpu_offload: true, which is slow"


@pytest.mark.parametrize(("count", "gpus"), [(9, 3), (17, 5), (4 * 64 + 1, None)])
def test_the_remedy_names_how_many_would_do(count: int, gpus: int | None) -> None:
    with pytest.raises(DeviceOom) as raised:
        place(blocks(*[1] * count), {"cuda:0": 4 * GIB, "cuda:1": 4 * GIB})
    remedy = raised.value.remedy
    if gpus is None:
        assert remedy.startswith("accelerators with more memory")
    else:
        assert remedy.startswith(f"resources: {{gpus: {gpus}}}")
        assert place(blocks(*[1] * count), {f"cuda:{place}": 4 * GIB for place in range(gpus)}).parted


def test_the_host_takes_what_is_left_and_the_first_device_keeps_room_for_the_largest() -> None:
    given = blocks(1, 1, 2, 1, 1)
    placed = place(given, {"cuda:0": 4 * GIB}, host=8 * GIB)
    assert placed.devices == {"cuda:0": ("layers.0", "layers.1"), HOST: ("layers.2", "layers.3", "layers.4")}
    assert "slow" in placed.reason
    assert "4 GiB in the host's memory" in placed.reason


@pytest.mark.parametrize(("limit", "here"), [(6, ["layers.0", "layers.1", "layers.2", "layers.3"]), (4.5, ["layers.0"])])
def test_room_is_kept_for_what_the_host_keeps_and_no_more(limit: float, here: list[str]) -> None:
    # As of a small model with many words: the first block, which stays, is the largest by far.
    given = blocks(4, *[0.5] * 10)
    placed = place(given, {"cuda:0": int(limit * GIB)}, host=100 * GIB)
    assert list(placed.devices["cuda:0"]) == here
    assert list(placed.devices[HOST]) == [block.names[0] for block in given[len(here) :]]


def test_a_model_of_which_nothing_would_lie_on_the_accelerator_has_no_place() -> None:
    with pytest.raises(DeviceOom) as raised:
        place(blocks(4, *[0.5] * 10), {"cuda:0": int(4.2 * GIB)}, host=100 * GIB)
    assert raised.value.why.endswith("5 GiB are left over, and the host has 100 GiB, but cuda:0 no room to compute what would lie there")


def test_a_host_too_small_is_said_with_its_number() -> None:
    with pytest.raises(DeviceOom) as raised:
        place(blocks(4, 4, 4), {"cuda:0": 4 * GIB}, host=2 * GIB)
    assert raised.value.why.endswith("and the host has 2 GiB")
    assert raised.value.remedy == "resources: {gpus: 3}"


def test_a_block_that_no_device_can_compute_is_not_offloaded() -> None:
    with pytest.raises(DeviceOom, match="does not fit"):
        place(blocks(5, 1), {"cuda:0": 4 * GIB}, host=100 * GIB)


def test_any_placement_is_whole_in_order_and_within_memory() -> None:
    chance = random.Random(5)
    parted = refused = 0
    for _ in range(400):
        given = blocks(*[chance.uniform(0.1, 3) for _ in range(chance.randint(1, 30))])
        memory = {f"cuda:{number}": int(chance.uniform(1, 20) * GIB) for number in range(chance.randint(1, 4))}
        host = chance.choice([None, 10 * GIB])
        try:
            placed = place(given, memory, host)
        except DeviceOom:
            refused += 1
            # Not even full devices, one after the other, take it.
            waiting = [block.size for block in given]
            for size in memory.values():
                taken = itertools.accumulate(waiting)
                waiting = waiting[sum(total <= size for total in taken) :]
            assert waiting
            continue
        if not placed.parted and (WHOLE,) in placed.devices.values():
            assert sum(block.size for block in given) <= max(memory.values())
            continue
        parted += 1
        assert [name for names in placed.devices.values() for name in names] == [name for block in given for name in block.names]
        limits = {**memory, HOST: host or 0}
        assert all(size <= limits[device] for device, size in sizes_on(placed, given).items())
    assert parted > 50
    assert refused > 50
