"""``.npy``, ``.npz``, ``.safetensors``, ``.pt`` and ``.csv`` files, good and bad."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from vgaudit.data import open_batches, resolve_loss
from vgaudit.data.batches import Batches
from vgaudit.data.sources import open_source
from vgaudit.data.sources.npy_header import read_header
from vgaudit.errors import BadConfig, CannotLoad, CannotRun, UnknownSource
from vgaudit.job import DataOptions

X = np.arange(60, dtype=np.float32).reshape(10, 6)
Y = np.arange(10) % 3


class Linear(nn.Module):
    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Named(nn.Module):
    """Takes two arrays by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.layer = nn.Linear(6, 3)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        return self.layer((self.table(ids) * weights[..., None]).sum(1))


def opened(path: Path | str, model: nn.Module | None = None, **options: Any) -> Batches:
    return open_batches(model or Linear(), DataOptions(data=str(path), **options))


def refused(path: Path | str, model: nn.Module | None = None) -> tuple[str, str]:
    with pytest.raises(CannotLoad) as caught:
        opened(path, model)
    return caught.value.message, caught.value.hint


def rows(batches: Batches) -> tuple[Tensor, Tensor]:
    """Returns inputs and labels, in the order of the rows of ``X``."""
    x = torch.cat([batch.args[0] for batch in batches])
    y = torch.cat([batch.labels for batch in batches])
    order = x[:, 0].argsort()
    return x[order], y[order]


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.npz": lambda path: np.savez(path, x=X, y=Y),
    "b.npz": lambda path: np.savez_compressed(path, X=X, Labels=Y),
    "c.npz": lambda path: np.savez(path, inputs=np.asfortranarray(X), targets=Y),
    "d.npz": lambda path: np.savez(path, data=X.astype(">f8"), label=Y.astype(">u2")),
    "e.npz": lambda path: np.savez(
        path, x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2]
    ),
    "f.pt": lambda path: torch.save((torch.tensor(X), torch.tensor(Y)), path),
    "g.pt": lambda path: torch.save({"x": torch.tensor(X), "y": torch.tensor(Y)}, path),
    "h.pt": lambda path: torch.save(
        [torch.tensor(X), torch.tensor(Y)], path, _use_new_zipfile_serialization=False
    ),
    "i.safetensors": lambda path: save_file(
        {"features": torch.tensor(X), "target": torch.tensor(Y)}, path
    ),
    "j.csv": lambda path: (
        path.write_text(
            "a,b,c,label,d,e,f\n"
            + "".join(
                ",".join(map(str, [*row[:3], label, *row[3:]])) + "\n"
                for row, label in zip(X.tolist(), Y.tolist(), strict=True)
            )
        )
        and None
    ),
    "k.csv": lambda path: (
        path.write_text(
            "\ufeffa;b;c;d;e;f;kind\r\n"
            + "".join(
                ";".join(map(str, [*row, "xyz"[label]])) + "\r\n"
                for row, label in zip(X.tolist(), Y.tolist(), strict=True)
            ),
            encoding="utf-8",
        )
        and None
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_rows_that_were_written(
    tmp_path: Path, name: str
) -> None:
    WRITERS[name](tmp_path / name)
    batches = opened(tmp_path / name, batch_size=4)
    x, y = rows(batches)

    assert [4, 4, 2] == [batch.size for batch in batches]
    assert torch.equal(torch.tensor(X), x)
    assert Y.tolist() == y.tolist()
    assert torch.int64 == y.dtype
    assert batches.labelled


def test_inputs_alone_have_no_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    batches = opened(tmp_path / "a.npy")

    assert not batches.labelled
    assert resolve_loss(None, batches.labelled) is None
    assert 8 == next(iter(batches)).size


def test_unused_arrays_are_told(tmp_path: Path) -> None:
    WRITERS["e.npz"](tmp_path / "e.npz")

    assert (
        "not used from e.npz: x_test, y_test" in opened(tmp_path / "e.npz").facts.notes
    )


def test_arrays_by_the_names_of_arguments(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        ids=np.ones((10, 4), np.int64),
        weights=np.ones((10, 4), np.float64),
        labels=Y,
    )
    model = Named()
    batches = opened(tmp_path / "a.npz", model)
    (batch, _) = batches

    assert {"ids": torch.int64, "weights": torch.float32} == {
        name: value.dtype for name, value in batch.kwargs.items()
    }
    assert (8, 3) == tuple(model(**batch.kwargs).shape)


def test_arrays_of_other_names_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", left=X, right=X)

    message, hint = refused(tmp_path / "a.npz")

    assert "cannot tell the inputs among the arrays left, right" == message
    assert hint.startswith("name them x and y, or as in Linear.forward(x")


@pytest.mark.parametrize(
    ("array", "model", "shape", "note"),
    [
        (
            np.zeros((9, 28, 28), np.uint8),
            nn.Conv2d(1, 2, 3),
            (1, 28, 28),
            "bytes scaled to [0, 1]",
        ),
        (
            np.zeros((9, 8, 8, 3), np.float32),
            nn.Conv2d(3, 2, 3),
            (3, 8, 8),
            "channels moved from the last dimension to the second",
        ),
        (
            np.zeros((9, 1, 8, 8), np.float32),
            nn.Conv2d(3, 2, 3),
            (3, 8, 8),
            "grey repeated in three channels",
        ),
        (
            np.zeros((9, 3, 8, 8), np.float32),
            nn.Conv2d(1, 2, 3),
            (1, 8, 8),
            "colours averaged to grey",
        ),
        (
            np.zeros((9, 4, 5), np.float32),
            nn.Linear(20, 2),
            (20,),
            "each sample flattened",
        ),
        (
            np.zeros((9, 64), np.float32),
            nn.Conv2d(1, 2, 3),
            (1, 8, 8),
            "each row read as an image of 1x8x8",
        ),
        (
            np.zeros((9, 50), np.float32),
            nn.Conv1d(1, 2, 3),
            (1, 50),
            "a channel dimension added",
        ),
        (
            np.zeros((9, 50, 4), np.float32),
            nn.Conv1d(4, 2, 3),
            (4, 50),
            "last two dimensions exchanged",
        ),
        (np.zeros(9, np.float32), nn.Linear(1, 2), (1,), "a feature dimension added"),
        (
            np.zeros((9, 6), np.int32),
            nn.Linear(6, 2),
            (6,),
            "whole numbers turned into float32",
        ),
        (np.zeros((9, 6), np.int32), nn.Embedding(5, 2), (6,), None),
        (np.zeros((9, 6), np.float64), nn.Linear(6, 2).double(), (6,), None),
    ],
)
def test_shapes_are_fitted_to_the_model(
    tmp_path: Path,
    array: np.ndarray[Any, Any],
    model: nn.Module,
    shape: tuple[int, ...],
    note: str | None,
) -> None:
    np.save(tmp_path / "a.npy", array)
    batches = opened(tmp_path / "a.npy", nn.Sequential(model))
    batch = next(iter(batches))

    assert shape == tuple(batch.args[0].shape[1:])
    assert (note in batches.facts.notes) if note else (batches.facts.notes == ())
    model(batch.args[0])


def test_bytes_are_scaled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 5, 5), 51, np.uint8))

    batch = next(iter(opened(tmp_path / "a.npy", nn.Conv2d(1, 1, 3))))

    assert torch.allclose(torch.full((4, 1, 5, 5), 0.2), batch.args[0])


# Bad files ---


def npy(path: Path, header: str, payload: bytes = b"", version: int = 1) -> Path:
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + text + payload)
    return path


def plain(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            plain("(1099511627776, 9)"),
            "a.npy claims 39,582,418,599,936 bytes (float32 1099511627776x9) and has 8",
        ),
        (
            plain("(9, 99999999999999999999999)"),
            "a.npy claims 3,599,999,999,999,999,999,999,964 bytes "
            "(float32 9x99999999999999999999999) and has 8",
        ),
        (
            plain("(2, 2)", "'|O'"),
            "a.npy holds Python objects, which would have to be unpickled",
        ),
        (plain("(1,)", "'<U2'"), "a.npy holds values of type '<U2', not numbers"),
        (plain("(1,)", "'<f3'"), "a.npy has an unknown type '<f3'"),
        (
            plain("(1,)", "[('a', '<f4')]"),
            "a.npy holds records with named fields, not numbers",
        ),
        ("{}", "a.npy has a header that is not of the NPY format"),
        (plain("(" + "9" * 5000 + ")"), "a.npy has a header with a shape that is none"),
        (plain("(3 4)"), "a.npy has a header with a shape that is none"),
        (
            "(" * 5000 + ")" * 5000,
            "a.npy has a header of 10,001 bytes: not a plain array",
        ),
        ("[" * 4000, "a.npy has a header that is not of the NPY format"),
    ],
)
def test_a_bad_header_is_refused_before_allocation(
    tmp_path: Path, header: str, message: str
) -> None:
    assert message == refused(npy(tmp_path / "a.npy", header, b"12345678"))[0]


def test_the_same_inside_an_archive(tmp_path: Path) -> None:
    member = npy(tmp_path / "x.npy", plain("(1099511627776, 9)"), b"12345678")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(member, "x.npy")

    message, _ = refused(tmp_path / "a.npz")

    assert message.startswith("a.npz[x.npy] claims 39,582,418,599,936 bytes (float32 ")


@given(st.binary(max_size=200))
def test_no_header_breaks_the_reader(data: bytes) -> None:
    for start in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        try:
            header = read_header(io.BytesIO(start + data), "a.npy")
        except CannotLoad:
            continue
        assert header.nbytes >= 0


@given(
    st.sampled_from(["<f4", ">f8", "<i8", "|u1", "|b1", "<c8", ">u2"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
)
def test_headers_that_numpy_writes_are_read(
    descr: str, shape: list[int], fortran: bool
) -> None:
    array = np.zeros(shape, descr, order="F" if fortran else "C")
    stream = io.BytesIO()
    np.save(stream, array)
    stream.seek(0)
    header = read_header(stream, "a.npy")

    assert (array.dtype, array.shape) == (header.dtype, header.shape)
    assert array.nbytes == header.nbytes
    assert len(stream.getvalue()) == header.offset + header.nbytes
    assert header.offset == stream.tell()


def test_an_archive_that_would_explode_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2**21, 10), np.float32))

    message, hint = refused(tmp_path / "a.npz")

    assert message.startswith("a.npz[x.npy] would grow ")
    assert message.endswith(" times to 83,886,208 bytes")
    assert "if you trust it, save it uncompressed with np.savez" == hint


def test_small_archives_may_shrink_as_much_as_they_like(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((10_000, 6), np.float32))

    assert 8 == next(iter(opened(tmp_path / "a.npz"))).size


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_byte_is_noticed(tmp_path: Path, compressed: bool) -> None:
    write = np.savez_compressed if compressed else np.savez
    write(tmp_path / "a.npz", x=np.random.default_rng(0).random((50, 6)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)

    message, hint = refused(tmp_path / "a.npz")

    assert message.startswith("a.npz is damaged or no archive: ")
    assert "copy, download or save it again" == hint


TEXT = b"epoch,loss\n1,2\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.npz",
            TEXT,
            "a.npz is damaged or no archive: File is not a zip file",
        ),
        ("a.npy", TEXT, "a.npy is not a NumPy array file"),
        ("a.npy", b"\x93NUMPY\x01", "a.npy is not a NumPy array file"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff", "a.npy is truncated inside its header"),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00\xff\x00{",
            "a.npy is truncated inside its header",
        ),
        (
            "a.npy",
            b"\x93NUMPY\x09\x00\xff\x00",
            "a.npy has NPY version 9.0, and 1 to 3 exist",
        ),
        ("a.pt", TEXT, "a.pt is not a file of tensors, or it is damaged"),
        (
            "a.pt",
            b"PK\x03\x04",
            "a.pt is damaged or no archive: File is not a zip file",
        ),
        ("a.csv", b"\xff\xfe\x00a", "a.csv is not UTF-8 text"),
        ("a.csv", b"\n\n", "a.csv holds no cells"),
        ("a.csv", b"a,b\n", "a.csv has a header and no rows"),
        ("a.csv", b"a,b\n,\n", "a.csv has only rows with empty cells"),
        ("a.csv", b"a\n1\n", "a.csv has the single column 'a'"),
        (
            "a.csv",
            b"a,label\n1,0\nred,1\n",
            "a.csv, line 3: column 'a' holds text: 'red'",
        ),
        ("a.csv", b"a,b\n1,0\n2,red\n", "a.csv, line 3: column 'b' holds text: 'red'"),
        (
            "a.csv",
            b"a,b\n1,ann\n2,bob\n3,cy\n",
            "a.csv, line 2: column 'b' holds text: 'ann', another in each row",
        ),
        ("a.csv", b"a,b\n1,0\n1,2,3\n", "a.csv, line 3: 3 cells, and the header has 2"),
        ("a.csv", b"b,a\n\x00,1\n", r"a.csv, line 2: column 'b' holds text: '\x00'"),
        ("a.npz", b"", "{} is an empty file"),
        ("a.csv", b"", "{} is an empty file"),
    ],
)
def test_bad_files_are_named_with_their_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    assert message.format(tmp_path / name) == refused(tmp_path / name)[0]


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Returns a file that was cut, or in which bytes were changed or added."""
    cut, place = (int(n) for n in random.integers(0, [3, len(data)]))
    if cut == 0:
        return data[:place]
    extra = random.bytes(int(random.integers(1, 20)))
    return data[:place] + extra + data[place + (len(extra) if cut == 1 else 0) :]


@pytest.mark.parametrize("name", [name for name in WRITERS if name[0] not in "bcdeg"])
def test_no_damage_breaks_the_readers(tmp_path: Path, name: str) -> None:
    """Either the file still reads, or it is refused in one line."""
    WRITERS[name](tmp_path / name)
    whole, random = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    told: list[str] = []
    for _ in range(100):
        (tmp_path / name).write_bytes(damaged(whole, random))
        try:
            samples = open_source(str(tmp_path / name)).samples
        except CannotLoad as error:
            told.append(error.message + error.hint)
            continue
        assert samples is not None
        for index in range(len(samples)):
            samples[index]

    assert not any("\n" in text or "weights_only" in text for text in told)
    assert told


def test_a_damaged_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")

    assert refused(tmp_path / "a.safetensors")[0].startswith(
        "a.safetensors is damaged: "
    )


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(
        {"x": torch.zeros(2), "y": Evil()},
        "a.pt",
        _use_new_zipfile_serialization=zipped,
    )

    message, hint = refused(tmp_path / "a.pt")

    assert (
        f"a.pt is refused: it needs the Python object {os.system.__module__}.system"
        == message
    )
    assert "weights_only" not in message + hint
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Evil()))

    assert "weights_only" not in " ".join(refused(tmp_path / "a.pt"))


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(10**12)}, tmp_path / "a.pt")

    assert (
        "a.pt[x] has more elements than its file holds numbers"
        == refused(tmp_path / "a.pt")[0]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.quantize_per_tensor(tensor, 1, 0, torch.qint8),
    ],
    ids=["sparse", "quantized"],
)
def test_tensors_that_are_not_plain_are_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor]
) -> None:
    torch.save({"x": change(torch.eye(3))}, tmp_path / "a.pt")

    assert (
        "a.pt[x] is not a plain tensor (meta, sparse or quantized)"
        == refused(tmp_path / "a.pt")[0]
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "a.pt is of type int, not a tensor"),
        ({}, "a.pt is of type dict, not a tensor"),
        ({"x": [1, 2]}, "a.pt[x] is of type list, not a tensor"),
        ([torch.zeros(2)] * 3, "a.pt is of type list, not a tensor"),
    ],
)
def test_something_else_in_a_tensor_file(
    tmp_path: Path, value: Any, message: str
) -> None:
    torch.save(value, tmp_path / "a.pt")

    assert message == refused(tmp_path / "a.pt")[0]


def test_a_flipped_byte_in_a_tensor_file(tmp_path: Path) -> None:
    torch.save({"x": torch.rand(500, 6)}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[5000] ^= 1
    (tmp_path / "a.pt").write_bytes(data)

    message, _ = refused(tmp_path / "a.pt")

    assert message.startswith("a.pt is damaged: checksum mismatch in ")


def test_a_bomb_in_a_tensor_file(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(500_000)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))

    message, _ = refused(tmp_path / "a.pt")

    assert message.startswith("a.pt would grow to 2,00")
    assert message.endswith(" bytes: not written by torch.save")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y[:4]}, "a.npz: the numbers of rows differ: x has 10, y has 4"),
        ({"x": X[:0]}, "a.npz has no rows"),
        ({"x": np.float32(1)}, "a.npz: the array is one number, without rows"),
        ({"labels": Y}, "a.npz holds labels (labels) and no inputs"),
        ({}, "a.npz holds no array"),
    ],
)
def test_arrays_that_are_no_data_set(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)

    assert message == refused(tmp_path / "a.npz")[0]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    (tmp_path / "b.npz").mkdir()
    (tmp_path / "near.npz").touch()

    assert f"{tmp_path}/a.npz is not a regular file" == refused(tmp_path / "a.npz")[0]
    assert f"{tmp_path}/b.npz is a directory" == refused(tmp_path / "b.npz")[0]
    assert (
        f"no such file: {tmp_path}/nearr.npz",
        "near it: near.npz, a.npz",
    ) == refused(tmp_path / "nearr.npz")


def test_csv_empty_cells_skip_their_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,0\n,1\n3,\n4,1\n")
    batches = opened(tmp_path / "a.csv", Linear(1))

    assert [2] == [batch.size for batch in batches]
    assert (
        "line 3: column 'a' is empty",
        "line 4: column 'b' is empty",
    ) == batches.facts.skipped


@pytest.mark.parametrize(
    ("text", "dtype", "note"),
    [
        ("a,target\n1,0\n2,1\n", torch.int64, "labels are in column 'target'"),
        ("a,z\n1,0.5\n2,1\n", torch.float32, "labels are in the last column, 'z'"),
        ("1,0\n2,1\n", torch.int64, "no header: columns are numbered from 1"),
        ("a,y\n1,3\n2,3\n", torch.int64, "all labels are 3"),
        (
            "a,y\n1,no\n2,no\n3,yes\n",
            torch.int64,
            "2 classes in column 'y': no=0, yes=1",
        ),
    ],
)
def test_csv_labels(tmp_path: Path, text: str, dtype: torch.dtype, note: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    batches = opened(tmp_path / "a.csv", Linear(1))

    assert dtype == next(iter(batches)).labels.dtype
    assert note in batches.facts.notes


def test_hostile_names_are_made_visible(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\x1b[31mred\u202e,y\nx,1\n")

    message, _ = refused(tmp_path / "a.csv")

    assert "a.csv, line 2: column '\\x1b[31mred\\u202e' holds text: 'x'" == message


def test_labels_without_an_output_are_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.arange(10))
    model = Linear()
    batch = next(iter(opened(tmp_path / "a.npz", batch_size=10)))
    loss = resolve_loss(None, True)

    assert loss is not None
    with pytest.raises(CannotRun, match=r"^label \d but 3 outputs$"):
        loss.function(model(*batch.args), batch.labels)


def test_inputs_and_data_exclude_each_other(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(BadConfig) as caught:
        opened(tmp_path / "a.npy", inputs=("8x6",))

    assert (
        "--input and --data exclude each other, but for images" == caught.value.message
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "no data source understands 'nothing', and no such file exists"),
        (
            ".",
            "no data source understands '.', a directory (for images: imagefolder:DIR)",
        ),
        ("pyproject.toml", "no data source understands 'pyproject.toml'"),
    ],
)
def test_an_unknown_spec_lists_what_is_understood(
    spec: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UnknownSource) as caught:
        opened(spec)

    assert message == caught.value.message
    assert caught.value.hint == (
        "understood: imagefolder:DIR, torchvision:MNIST[/PART]@ROOT, FILE.npz, "
        "FILE.safetensors, FILE.csv, file.py:factory"
    )
