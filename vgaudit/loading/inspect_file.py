"""What a file holds, told from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading import contents, dcp, foreign, safetensors_file
from vgaudit.loading.archive import FOREIGN, Archive, examine_archive, is_zip
from vgaudit.loading.checkpoint import candidates, is_weights, reach
from vgaudit.loading.inspection import Inspection, of_tensors, shown, with_guess
from vgaudit.loading.local_file import LocalFile, examine
from vgaudit.loading.module_tree import check_tree, state_of
from vgaudit.loading.refusal import is_user_class
from vgaudit.loading.spec import Spec
from vgaudit.loading.survey import Survey, survey
from vgaudit.loading.torch_file import read_safely
from vgaudit.loading.wording import shorten

CODE_ARCHIVES = ("torchscript", "pt2", "torch-package")


def of_file(spec: Spec, options: LoadOptions) -> Inspection:
    """Returns what a file holds.

    Raises:
        CannotLoad: damaged, missing, or not recognised at all.
    """
    assert spec.path is not None
    contents.refuse_part(spec.path)
    file = examine(spec.path, options.sha256)
    known = Inspection(
        spec=spec.text,
        format="",
        tier="",
        path=str(file.path),
        size=file.size,
        sha256=file.sha256,
    )
    if contents.is_index(file.path):
        return of_shards(known, file)
    if file.path.name == dcp.METADATA:
        known = replace(known, format=dcp.FORMAT, tier="T0", notes=(dcp.NOTE,))
        root: Any = dcp.open_checkpoint(file).root
        return of_root(known, reach(root, spec.key, spec.text) if spec.key else root)
    if safetensors_file.looks_like(file.head, file.path.suffix):
        return of_safetensors(known, file)
    if is_zip(file.head):
        archive = examine_archive(file)
        if archive.kind != "torch":
            return of_archive(known, archive)
    other = None if is_zip(file.head) else foreign.recognise(file.head)
    try:
        found = survey(file)
    except CannotLoad:
        if other is None:
            raise
        return replace(known, format=other.name, notes=(other.kind, other.hint))
    return of_torch(known, found, spec.key)


def of_safetensors(known: Inspection, file: LocalFile) -> Inspection:
    """Returns the figures of a safetensors file, from its header alone."""
    if file.head[safetensors_file.LENGTH_BYTES :][:1] != b"{":
        foreign.refuse_foreign(file)
    header = safetensors_file.read_header(file)
    known = replace(known, format="safetensors", tier="T0")
    known = replace(
        known,
        metadata={shorten(k): shorten(v) for k, v in header.metadata.items()},
    )
    state = {
        slot.name: torch.empty(slot.shape, dtype=slot.dtype, device="meta")
        for slot in header.slots
    }
    return with_guess(of_tensors(known, state), state)


def of_shards(known: Inspection, file: LocalFile) -> Inspection:
    """Returns the figures of a sharded checkpoint."""
    whole = contents.read_shards(file, known.spec)
    known = replace(
        known, format="sharded", tier=whole.origin.tier, notes=whole.origin.notes
    )
    return with_guess(of_tensors(known, whole.root), whole.root)


def of_archive(known: Inspection, archive: Archive) -> Inspection:
    """Returns the members of an archive that is no output of ``torch.save``."""
    return replace(
        known,
        format=archive.kind,
        tier="T2" if archive.kind in CODE_ARCHIVES else "",
        keys=shown(dict.fromkeys(archive.names)),
        archive_notes=archive.notes,
        notes=FOREIGN.get(archive.kind, ("a zip archive without data.pkl",)),
    )


def of_torch(known: Inspection, found: Survey, key: str | None) -> Inspection:
    """Returns the figures of what ``torch.save`` wrote.

    What needs no more trust than T1 is read; the rest is told by its opcodes.
    """
    known = replace(
        known,
        format=found.format,
        tier=tier(found),
        unsafe_globals=found.verdict.unsafe,
        notes=(*found.notes, *found.verdict.reasons),
        archive_notes=found.archive_notes,
    )
    if found.verdict.tier == "T3":
        return by_opcodes(known, found)
    root = read_safely(found, found.verdict.allowed)
    if key:
        root = reach(root, key, known.spec)
    return of_root(known, root)


def tier(found: Survey) -> str:
    """Returns the tier that is needed: T2 where only the user's classes lack."""
    verdict = found.verdict
    if verdict.tier != "T3" or verdict.reasons:
        return verdict.tier
    user = all(is_user_class(name, found) for name in verdict.unsafe)
    return "T2" if user else "T3"


def by_opcodes(known: Inspection, found: Survey) -> Inspection:
    """Returns the figures of a pickle that is not opened."""
    facts = found.facts
    module = found.format == "module-pickle"
    return replace(
        known,
        tensors=len(facts.tensors),
        parameters=sum(math.prod(shape) for shape in facts.tensors),
        keys=shown(dict.fromkeys(facts.root_keys)),
        architecture=shorten(facts.root_kind) if module else "",
    )


def of_root(known: Inspection, root: Any) -> Inspection:
    """Returns the figures of an object that was read safely."""
    if isinstance(root, nn.Module):
        return of_module(known, root)
    if is_weights(root):
        return with_guess(of_tensors(known, root), root)
    found = candidates(root)
    names = tuple(shorten(entry.key) for entry in found)
    keys = shown(root) if isinstance(root, Mapping) else ()
    if len(found) != 1:
        named = dcp.format_within(known.format) if found else known.format
        known = replace(known, format=named)
        note = "several sets of weights: choose --key" if found else "no weights found"
        return replace(known, keys=keys, entries=names, notes=(*known.notes, note))
    inner = of_root(known, found[0].value)
    return replace(
        inner, format=dcp.format_within(inner.format), keys=keys, entries=names
    )


def of_module(known: Inspection, module: nn.Module) -> Inspection:
    """Returns the figures of a pickled module."""
    notes = check_tree(module, known.spec)
    known = replace(known, format="module-pickle", notes=(*known.notes, *notes))
    described = of_tensors(known, state_of(module, known.spec))
    return replace(described, architecture=type(module).__name__)
