"""A PyTorch file as it looks from outside, before torch opens it.

Three containers: the zip archive of ``torch.save``, the one it wrote before
1.6 (several pickles, then the storages), and a plain pickle.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import BinaryIO

from vgaudit.errors import CannotLoad
from vgaudit.loading import foreign
from vgaudit.loading.archive import (
    examine_archive,
    is_zip,
    records_only,
    wrong_kind,
)
from vgaudit.loading.local_file import LocalFile
from vgaudit.loading.pickle_facts import MalformedPickle, Node, PickleFacts
from vgaudit.loading.pickle_scan import scan
from vgaudit.loading.tensors import quantized
from vgaudit.loading.trust import Verdict, judge, quantisation
from vgaudit.loading.wording import shorten

LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
LEGACY_PREFIX_PICKLES = 3
"""Magic number, protocol version, system: before the pickle of the object."""

ITEM_SIZES = {
    **{"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "ComplexDouble": 16},
    **{"ComplexFloat": 8, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1},
    **{"Bool": 1, "Untyped": 1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known of a PyTorch file without opening it with torch.

    Attributes:
        file: the file.
        container: ``zip``, ``legacy`` or ``pickle``.
        facts: what its pickle would do.
        verdict: the tier it needs.
        strangers_beside: folder of the records, where other members lie beside it.
        notes, archive_notes: statements for the user.
    """

    file: LocalFile
    container: str
    facts: PickleFacts
    verdict: Verdict
    strangers_beside: str = ""
    notes: tuple[str, ...] = ()
    archive_notes: tuple[str, ...] = ()

    def open(self) -> BinaryIO:
        """Returns what torch is to read."""
        if self.strangers_beside:
            return records_only(self.file, self.strangers_beside)
        return self.file.open()

    @property
    def format(self) -> str:
        """What the file holds, by the value that comes out of its pickle."""
        kind = self.facts.root_kind
        if "." in kind and kind != "collections.OrderedDict":
            return "module-pickle"
        return "state_dict"


def survey(file: LocalFile) -> Survey:
    """Returns what can be known of a PyTorch file.

    Raises:
        CannotLoad: another format, damaged, or quantised.
    """
    if is_zip(file.head):
        found = survey_zip(file)
    elif file.head.startswith(LEGACY_MAGIC):
        found = survey_legacy(file)
    else:
        found = survey_pickle(file)
    name = quantisation(found.facts.globals)
    if name is not None:
        raise quantized(f"{file.path} ({shorten(name)})")
    return found


def survey_zip(file: LocalFile) -> Survey:
    """Returns the survey of what ``torch.save`` writes today."""
    archive = examine_archive(file)
    if archive.kind != "torch":
        raise wrong_kind(file, archive)
    facts = read_facts(file, io.BytesIO(archive.pickle), len(archive.pickle))
    for key, storage in facts.storages.items():
        record = f"data/{key}"
        if record not in archive.sizes:
            raise file.damaged(f"record {shorten(record)} is missing")
        needed = storage.numel * item_size(storage.kind)
        if archive.sizes[record] < needed:
            raise file.damaged(
                f"record {shorten(record)} has {archive.sizes[record]} bytes, "
                f"its tensor needs {needed}"
            )
    return Survey(
        file=file,
        container="zip",
        facts=facts,
        verdict=judge(facts),
        strangers_beside=archive.root if archive.has_strangers else "",
        archive_notes=archive.notes,
    )


def survey_legacy(file: LocalFile) -> Survey:
    """Returns the survey of what ``torch.save`` wrote before 1.6."""
    with file.open() as stream:
        for _ in range(LEGACY_PREFIX_PICKLES):
            read_facts(file, stream, file.size)
        facts = read_facts(file, stream, file.size)
        listed = read_facts(file, stream, file.size).root
        left = file.size - stream.tell()
    keys = set(map(str, listed.items)) if isinstance(listed, Node) else set()
    if keys != set(facts.storages):
        # torch would leave the storages that are not listed uninitialised.
        raise file.damaged("its list of storages does not fit its tensors")
    needed = sum(8 + s.numel * item_size(s.kind) for s in facts.storages.values())
    if needed > left:
        raise file.damaged(f"its tensors need {needed} bytes, {left} are left")
    note = "legacy format (before PyTorch 1.6), without checksums"
    return Survey(
        file=file, container="legacy", facts=facts, verdict=judge(facts), notes=(note,)
    )


def survey_pickle(file: LocalFile) -> Survey:
    """Returns the survey of a plain pickle.

    Raises:
        CannotLoad: it is none, and what it is instead.
    """
    other = foreign.recognise(file.head)
    if other is not None and other is not foreign.TEXT:
        foreign.refuse_foreign(file)
    try:
        with file.open() as stream:
            facts = scan(stream, file.size)
    except MalformedPickle as error:
        foreign.refuse_foreign(file)
        if file.head[0] == 0x80:
            raise broken_pickle(file, error) from error
        raise CannotLoad(
            f"{file.path} is not a PyTorch file: neither a zip archive nor a pickle",
            hint="give what torch.save or safetensors wrote",
        ) from error
    verdict = judge(facts)
    reason = "a plain pickle, not written by torch.save"
    return Survey(
        file=file,
        container="pickle",
        facts=facts,
        verdict=Verdict(
            tier="T3", unsafe=verdict.unsafe, reasons=(*verdict.reasons, reason)
        ),
    )


def read_facts(file: LocalFile, stream: BinaryIO, size: int) -> PickleFacts:
    """Returns what the next pickle of the file would do."""
    try:
        return scan(stream, size)
    except MalformedPickle as error:
        raise broken_pickle(file, error) from error


def broken_pickle(file: LocalFile, error: MalformedPickle) -> CannotLoad:
    """Returns the error for a pickle that cannot be followed."""
    return CannotLoad(
        f"{file.path} cannot be read: {error.message}",
        hint="the file is damaged or hostile: get it again from its author",
    )


def item_size(kind: str) -> int:
    """Returns the bytes of one element of a storage class; 0 where unknown."""
    name = kind.rpartition(".")[2].removesuffix("Storage")
    return ITEM_SIZES.get(name, 0)
