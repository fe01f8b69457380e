"""Files that are whole or not there, whoever else writes beside."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from unlearn_app.common.atomic_files import partial_of, write_bytes


def test_two_processes_may_write_the_same_file_and_leftovers_of_dead_ones_go(
    tmp_path: Path,
) -> None:
    """With one name for what is half-written, the second to finish finds nothing to rename, or
    renames a mixture.
    """
    path = tmp_path / "cell.json"
    other = multiprocessing.get_context("spawn").Process(
        target=write_bytes, args=(tmp_path / "other", b"1")
    )
    other.start()
    other.join()
    dead = tmp_path / f".cell.json.{other.pid}-0a.partial"
    dead.write_bytes(b"half")
    living = partial_of(path)
    living.write_bytes(b"half")
    assert partial_of(path) != living and living.exists() and not dead.exists()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: write_bytes(path, bytes([row]) * 10_000), range(64)))
    content = path.read_bytes()
    assert len(content) == 10_000 and len(set(content)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["cell.json", "other", living.name])
