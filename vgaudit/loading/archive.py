"""A zip archive, checked before any record of it is used.

``torch.load`` checks neither the checksum of a record nor how far a compressed
record grows, so damage loads as wrong weights and a bomb as gigabytes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from vgaudit.errors import CannotLoad
from vgaudit.loading.local_file import LocalFile, require_torch
from vgaudit.loading.wording import listed, shorten

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
ENCRYPTED = 0x1
MAX_RATIO = 4
FREE_SIZE = 2**20
MAX_PICKLE = 256 * 2**20
CHUNK = 2**20

SCRIPTED = (
    "TorchScript, which is compiled code (tier T2)",
    "--allow-code measures the gradients of its parameters; for more, pass the eager "
    "model by a factory, file.py:factory, or save its state_dict and give --arch",
)
EXPORTED = (
    "a torch.export program, which is code (tier T2)",
    "--allow-code runs it, once its parts are checked; or pass the eager model "
    "by a factory, file.py:factory, or save its state_dict and give --arch",
)
FOREIGN = {
    "keras": ("a Keras model", "convert it to a PyTorch state_dict, then give --arch"),
    "numpy-archive": ("an archive of NumPy arrays", "give it as --data"),
    "torch-package": (
        "a torch.package archive, which is code",
        "save the state_dict of the model and give --arch",
    ),
    "torchscript": SCRIPTED,
    "pt2": EXPORTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What a zip archive holds.

    Attributes:
        kind: ``torch`` for what ``torch.save`` writes, else another name.
        root: folder of the records, with a slash at its end.
        names: of all members.
        sizes: bytes of each record below ``root``; empty for other kinds.
        pickle: the record ``data.pkl``; empty for other kinds.
        notes: members with suspicious names, and other oddities.
    """

    kind: str
    root: str
    names: tuple[str, ...]
    notes: tuple[str, ...]
    sizes: dict[str, int] = field(default_factory=dict)
    pickle: bytes = b""

    @property
    def has_strangers(self) -> bool:
        """Whether members lie outside ``root``."""
        return not all(name.startswith(self.root) for name in self.names)


def is_zip(head: bytes) -> bool:
    """Returns whether the first bytes are those of a zip archive."""
    return head.startswith(ZIP_MAGIC)


def examine_archive(file: LocalFile) -> Archive:
    """Returns what the archive holds, after every check that needs no torch.

    Raises:
        CannotLoad: truncated, encrypted, a bomb, a wrong checksum, a wrong
            byte order, or ambiguous records.
    """
    try:
        with file.open() as stream, zipfile.ZipFile(stream) as archive:
            return examine_members(file, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise file.damaged(str(error).lower()) from error
    except NotImplementedError as error:
        raise CannotLoad(
            f"{file.path} uses a compression that torch.save never does: {error}",
            hint="unpack it and save the model again with torch.save",
        ) from error


def examine_members(file: LocalFile, archive: zipfile.ZipFile) -> Archive:
    """Returns what the open archive holds."""
    members = archive.infolist()
    names = tuple(member.filename for member in members)
    check_members(file, members)
    notes = (*odd_names(names), *check_sums(file, archive))
    kind, root = classify(names)
    if kind != "torch":
        return Archive(kind=kind, root=root, names=names, notes=notes)
    sizes = {m.filename.removeprefix(root): m.file_size for m in members}
    check_torch_records(file, archive, root)
    pickle = archive.read(f"{root}data.pkl")
    return Archive(
        kind=kind, root=root, names=names, notes=notes, sizes=sizes, pickle=pickle
    )


def check_members(file: LocalFile, members: list[zipfile.ZipInfo]) -> None:
    """Refuses encryption, bombs, overlaps and doubles, from the directory alone."""
    for member in members:
        if member.flag_bits & ENCRYPTED:
            raise CannotLoad(
                f"{file.path} is an encrypted zip archive", hint="decrypt it first"
            )
        grown = member.file_size > MAX_RATIO * member.compress_size
        if grown and member.file_size > FREE_SIZE:
            raise CannotLoad(
                f"{file.path}: compressed record {shorten(member.filename)} grows from "
                f"{member.compress_size} to {member.file_size} bytes: "
                "not written by torch.save",
                hint="get the file from its author again",
            )
    if sum(member.compress_size for member in members) > file.size:
        raise CannotLoad(
            f"{file.path}: records of the archive overlap: not written by torch.save",
            hint="get the file from its author again",
        )
    (name, count), *_ = Counter(m.filename for m in members).most_common(1) or [("", 0)]
    if count > 1:
        raise CannotLoad(
            f"{file.path}: {count} records are named {shorten(name)}",
            hint="which one counts differs between readers: save the model again",
        )


def odd_names(names: tuple[str, ...]) -> list[str]:
    """Returns a note for each member whose name points out of the archive."""
    return [
        f"suspicious member {shorten(name)}; nothing is extracted"
        for name in names
        if ".." in PurePosixPath(name.replace("\\", "/")).parts
        or name.startswith(("/", "\\"))
    ]


def check_sums(file: LocalFile, archive: zipfile.ZipFile) -> list[str]:
    """Compares every record with its CRC-32; returns notes.

    Raises:
        CannotLoad: a record does not match.
    """
    members = archive.infolist()
    if not any(member.CRC for member in members):
        # torch.serialization.set_crc32_options(False) leaves them all at zero.
        for member in members:
            member.CRC = None  # type: ignore[assignment]
        return ["the archive was written without checksums: damage goes unnoticed"]
    for member in members:
        try:
            with archive.open(member) as record:
                while record.read(CHUNK):
                    pass
        except zipfile.BadZipFile as error:
            if "CRC" not in str(error):
                raise
            raise CannotLoad(
                f"{file.path}: CRC mismatch in record "
                f"{shorten(member.filename.partition('/')[2] or member.filename)}: "
                "the file is corrupt",
                hint="copy or download it again",
            ) from error
    return []


def classify(names: tuple[str, ...]) -> tuple[str, str]:
    """Returns the kind of archive and the folder of its records."""
    present = set(names)
    if "config.json" in present and "metadata.json" in present:
        return "keras", ""
    if names and all(name.endswith(".npy") for name in names):
        return "numpy-archive", ""
    if any(marks_export(name) for name in names):
        return "pt2", ""
    pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
    pickles = [name for name in pickles if name.count("/") <= 1]
    root = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
    if f"{root}constants.pkl" in present or any(
        name.startswith(f"{root}code/") for name in names
    ):
        return "torchscript", root
    if any(name.endswith(".data/extern_modules") for name in names):
        return "torch-package", ""
    return ("torch", root) if len(pickles) == 1 else ("zip", "")


def members_of(path: Path | None) -> tuple[str, ...]:
    """Returns the names in the directory of a zip file; none of anything else."""
    # To open a named pipe would wait for a writer.
    if path is None or not path.is_file():
        return ()
    require_torch()
    try:
        with open(path, "rb") as stream:
            if not stream.read(4).startswith(ZIP_MAGIC):
                return ()
            return tuple(zipfile.ZipFile(stream).namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return ()


def marks_export(name: str) -> bool:
    """Returns whether a member belongs to an archive of ``torch.export.save``."""
    return name.endswith(
        ("archive_format", "serialized_exported_program.json", "models/model.json")
    )


def check_torch_records(file: LocalFile, archive: zipfile.ZipFile, root: str) -> None:
    """Refuses a byte order that is neither little nor big, and a huge pickle.

    Raises:
        CannotLoad: names what is there instead.
    """
    name = f"{root}byteorder"
    order = archive.read(name) if name in archive.namelist() else b"little"
    if order not in (b"little", b"big"):
        raise CannotLoad(
            f"{file.path}: byte order {order[:20]!r} is neither little nor big",
            hint="the file is corrupt: copy or download it again",
        )
    size = archive.getinfo(f"{root}data.pkl").file_size
    if size > MAX_PICKLE:
        raise CannotLoad(
            f"{file.path}: its pickle has {size} bytes, more than {MAX_PICKLE}",
            hint="save the state_dict alone: torch.save(model.state_dict(), FILE)",
        )


def records_only(file: LocalFile, root: str) -> BinaryIO:
    """Returns the archive in memory without members outside ``root``.

    torch refuses an archive that has any.
    """
    buffer = io.BytesIO()
    with (
        file.open() as stream,
        zipfile.ZipFile(stream) as archive,
        zipfile.ZipFile(buffer, "w") as copy,
    ):
        for member in archive.infolist():
            if member.filename.startswith(root):
                copy.writestr(member.filename, archive.read(member))
    buffer.seek(0)
    return buffer


def wrong_kind(file: LocalFile, archive: Archive) -> CannotLoad:
    """Returns the error for an archive that is no output of ``torch.save``."""
    if archive.kind in FOREIGN:
        name, hint = FOREIGN[archive.kind]
        return CannotLoad(f"{file.path} is {name}", hint=hint)
    inside = listed(archive.names[:3]) or "nothing"
    return CannotLoad(
        f"{file.path} is a zip archive that holds {inside}: not a PyTorch file itself",
        hint="unpack it and give the model inside",
    )
