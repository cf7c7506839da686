"""The rooms that ship, and what a room says of itself."""

from zipfile import ZipFile

import pytest

from nano_llama.core.errors import UserError
from nano_llama.learn.museum import room, rooms
from nano_llama.learn.museum.catalogue import ARCHIVES, PARTS, read_archive, read_source, source_folders


def test_rooms_are_found_by_number():
    numbers = [one.number for one in rooms()]
    assert numbers == sorted(set(numbers))
    assert room(2).number == 2
    with pytest.raises(UserError, match="There is no room 99"):
        room(99)


def test_an_archive_holds_its_three_parts_and_they_are_compressed():
    for file in ARCHIVES.iterdir():
        with ZipFile(file) as archive:
            assert archive.namelist() == list(PARTS)
            assert all(info.compress_size < info.file_size for info in archive.infolist())
        assert read_archive(file).title.encode() not in file.read_bytes()


def test_the_causes_are_shown_in_another_order_and_the_right_one_is_known():
    for one in rooms():
        shown = one.causes_shown()
        assert sorted(shown.values()) == sorted(one.causes)
        assert shown[one.cause] == one.causes[0]
        assert one.causes_shown() == shown
    assert len({one.cause for one in rooms()}) > 1, "the right one is not always the same letter"


def test_a_source_is_read_with_its_number():
    assert [read_source(folder).number for folder in source_folders()] == [one.number for one in rooms()]
