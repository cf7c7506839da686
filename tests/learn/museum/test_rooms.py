"""Every room: its texts stand in the package as it is, its archive is what its source says, its detector separates.

The last is asked of two rooms by default, and of all with `-m museum`.
"""

import pytest

from nano_llama.learn.museum.catalogue import ARCHIVES, read_source, rooms, source_folders
from nano_llama.learn.museum.dev_check import about_texts, check_room

FOLDERS = source_folders()
SAMPLE = ("02_future", "36_same_prompt")


def by_name(folder):
    return folder.name


@pytest.mark.parametrize("folder", FOLDERS, ids=by_name)
def test_the_package_holds_each_old_text_once(folder):
    assert about_texts(read_source(folder)) == []


def test_the_archives_hold_what_the_sources_say():
    """After a change:  nano-llama museum dev pack"""
    assert rooms() == tuple(read_source(folder) for folder in FOLDERS)
    assert [file.stem for file in sorted(ARCHIVES.iterdir())] == [folder.name[:2] for folder in FOLDERS]


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder.name in SAMPLE], ids=by_name)
def test_the_detector_separates_in_a_sample(folder):
    assert check_room(read_source(folder))[0] == []


@pytest.mark.museum
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder.name not in SAMPLE], ids=by_name)
def test_the_detector_separates(folder):
    assert check_room(read_source(folder))[0] == []
