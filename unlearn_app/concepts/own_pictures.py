"""The user's own pictures: folders of PNG files with captions, which stand for pictures that the
original model would make.

Settings hold the hash of a folder, never its path, so that a record does not name the machine and a
run is repeated only with the same pictures.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ..common.errors import ConfigError, OutputError
from ..common.images import decoded_png, to_tensor
from ..common.record_files import read_bytes
from ..settings.run_config import PICTURE_FOLDERS, RunConfig, clean_text
from .concept import Lesson, evenly_spaced

if TYPE_CHECKING:
    from torch import Tensor

MOST_PICTURES, MOST_BYTES = 2000, 512 * 2**20
"""Pictures of a folder, and bytes of all of them together."""
MOST_CAPTION = 4096
"""Bytes of the file of a caption."""
CAPTION = 500
"""Characters of a caption."""


@dataclass(frozen=True)
class OwnPictures:
    """PNG files in the order of their names, and the caption of each, "" where it has none.

    `sha256` is the hash of all of them; names do not count.
    """

    files: tuple[bytes, ...] = field(repr=False)
    captions: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.files)

    def lesson(self, name: str, count: int, shape: tuple[int, int]) -> Lesson:
        """`count` of the pictures, evenly spaced, again from the first where there are fewer, as
        (`count`, 3, H, W) of the `shape` (H, W), and their captions; one without is captioned
        `name`.
        """
        rows = evenly_spaced(range(len(self)), count)
        captions = [self.captions[row] or name for row in rows]
        return fitted([self.files[row] for row in rows], shape), captions


def fitted(files: list[bytes], shape: tuple[int, int]) -> "Tensor":
    """Pictures (N, 3, H, W) in [-1, 1] of PNG files: resized until they fill `shape` (H, W), and
    what is too much of one side cut off evenly, as trainers do. Transparent parts are white.
    """
    height, width = shape
    pictures = []
    for content in files:
        picture = decoded_png(content).convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        rgb = opaque.convert("RGB")
        pictures.append(ImageOps.fit(rgb, (width, height), Image.Resampling.LANCZOS))
    return to_tensor(pictures)


def read_pictures(folder: str | Path, name: str = "pictures") -> OwnPictures:
    """The PNG files of a folder, each with the caption in the `.txt` file of the same name, if
    there is one; other files are ignored.

    Raises:
        ConfigError: there are none, too many or too large ones, or a file is damaged; `name` is the
            input that the path came from.
    """
    folder = Path(folder)
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.casefold() == ".png")
    except OSError as error:
        raise ConfigError(
            f"The folder {str(folder)!r} cannot be read ({error.strerror}); a folder of PNG"
            " pictures is accepted.",
            name,
        ) from None
    if not 1 <= len(paths) <= MOST_PICTURES:
        raise ConfigError(
            f"The folder {str(folder)!r} holds {len(paths):,} PNG pictures; 1 to"
            f" {MOST_PICTURES:,} are accepted.",
            name,
        )
    files, captions, size = [], [], 0
    for path in paths:
        files.append(_picture(path, name))
        captions.append(_caption(path.with_suffix(".txt"), name))
        size += len(files[-1])
        if size > MOST_BYTES:
            raise ConfigError(
                f"The pictures in {str(folder)!r} have more than {MOST_BYTES:,} bytes together;"
                " fewer or smaller ones are accepted.",
                name,
            )
    lines = (
        f"{hashlib.sha256(content).hexdigest()} {caption}\n"
        for content, caption in zip(files, captions, strict=True)
    )
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return OwnPictures(tuple(files), tuple(captions), digest)


def _picture(path: Path, name: str) -> bytes:
    try:
        content = read_bytes(path)
        decoded_png(content, path)
    except OutputError as error:
        raise ConfigError(str(error), name) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read: {error}; a PNG picture is accepted.", name
        ) from None
    return content


def _caption(path: Path, name: str) -> str:
    """The caption in a file; "" where there is none."""
    try:
        text = read_bytes(path, MOST_CAPTION).decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read as a caption: {error}; a line of text in UTF-8 is"
            " accepted.",
            name,
        ) from None
    said = f"caption in {path.name!r}"
    try:
        return clean_text(" ".join(text.split()), said, limit=CAPTION) if text.strip() else ""
    except ConfigError as error:
        raise ConfigError(str(error), name) from None


GivenPictures = Mapping[str, OwnPictures]
"""Folders of pictures by the name in `PICTURE_FOLDERS` that they are given for."""
NONE_GIVEN: GivenPictures = {}


def read_folders(**folders: Path | None) -> GivenPictures:
    """The pictures of the folders that are named, as `read_pictures` reads them.

    Raises:
        ConfigError: as `read_pictures`.
    """
    return {name: read_pictures(folder, name) for name, folder in folders.items() if folder}


def given_for(name: str, config: RunConfig, given: GivenPictures) -> OwnPictures | None:
    """The pictures that the settings name by their hash; None where they name none.

    Raises:
        ConfigError: they are not given, or they are others.
    """
    wanted, found = getattr(config, name), given.get(name)
    if wanted is None:
        return None
    option = f"--{name.replace('_', '-')} DIR"
    if found is None:
        raise ConfigError(
            f"The settings name {PICTURE_FOLDERS[name]} by the hash {wanted[:12]}…, and they are"
            f" not given; {option} with the same pictures is accepted.",
            name,
        )
    if found.sha256 != wanted:
        raise ConfigError(
            f"The settings name {PICTURE_FOLDERS[name]} by the hash {wanted[:12]}…, and those that"
            f" are given have {found.sha256[:12]}…; {option} with the same pictures and captions"
            " is accepted.",
            name,
        )
    return found


def check_given(config: RunConfig, given: GivenPictures) -> None:
    """Refuse pictures that a run with `config` cannot use, before anything is computed.

    Raises:
        ConfigError: as `given_for`; retain pictures without captions; fewer pictures than the
            adversary shall hold.
    """
    given_for("forget_pictures", config, given)
    retain = given_for("retain_pictures", config, given)
    if retain and "" in retain.captions:
        raise ConfigError(
            f"{retain.captions.count('')} of the {len(retain)} retain pictures have no caption;"
            " a .txt file beside each is accepted, since nothing else says what they show.",
            "retain_pictures",
        )
    check_adversary(config, given)


def check_adversary(config: RunConfig, given: GivenPictures) -> None:
    """Refuse pictures that the adversary of a run with `config` cannot use.

    Raises:
        ConfigError: as `given_for`, or fewer than it shall hold.
    """
    held = given_for("pictures", config, given)
    if held and config.attack.pictures > len(held):
        raise ConfigError(
            f"attack.pictures is {config.attack.pictures} and the adversary's folder holds"
            f" {len(held)}; at most these are accepted.",
            "attack.pictures",
        )


def settings_from(given: GivenPictures) -> dict[str, object]:
    """The settings that come with pictures: their hashes, and that the adversary holds its own."""
    settings: dict[str, object] = {name: own.sha256 for name, own in given.items()}
    if "pictures" in given:
        settings |= {"attack.data": "pictures", "attack.pictures": len(given["pictures"])}
    return settings
