"""The reader of PyTorch files: against torch's writer, files made by hand, and hostile ones."""

import collections
import io
import os
import pickle
import struct
import zipfile
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxstyle.errors import JaxstyleError
from jaxstyle.weights import read_pth

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4, "long": 4}}


class Named:
    """Pickles as a global of another module, without that module."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as the call of a global."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Stored:
    def __init__(self, *pid):
        self.pid = pid


class Writer(pickle._Pickler):
    """Python's own pickler, taught to name what is not installed and to refer to storages."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_named(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        self.save(value.function)
        self.save(value.arguments)
        self.write(pickle.REDUCE)

    dispatch[Named] = save_named
    dispatch[Call] = save_call

    def persistent_id(self, value):
        return value.pid if isinstance(value, Stored) else None


def dumps(value, protocol=2):
    stream = io.BytesIO()
    Writer(stream, protocol).dump(value)
    return stream.getvalue()


def storage(key="0", numel=12, kind="FloatStorage", view=()):
    return Stored("storage", Named("torch", kind), key, "cpu", numel, *view)


def tensor(store, offset=0, size=(3, 4), stride=(4, 1)):
    v2 = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(v2, store, offset, size, stride, False, collections.OrderedDict())


def legacy(root, storages, *, magic=MAGIC, system=SYSTEM, keys=None):
    """A file as PyTorch wrote it before version 1.6."""
    parts = [dumps(magic), dumps(1001), dumps(system), dumps(root), dumps(keys or list(storages))]
    for data, itemsize in storages.values():
        parts.append(struct.pack("<q", len(data) // itemsize) + data)
    return b"".join(parts)


def zipped(root, storages, *, compression=zipfile.ZIP_STORED, extra=()):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", root if isinstance(root, bytes) else dumps(root))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in extra:
            archive.writestr(name, data)
    return stream.getvalue()


NUMBERS = np.arange(12, dtype="<f4")


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return path

    return write


def refuse(path, *words):
    with pytest.raises(JaxstyleError) as caught:
        read_pth(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 400 + len(str(path))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("new", [True, False])
def test_reads_what_torch_writes(new, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(120, dtype=torch.float32).reshape(4, 5, 6)
    state = collections.OrderedDict(
        plain=base,
        transposed=base.transpose(0, 2),
        sliced=base[1:3, ::2, 3],
        scalar=torch.tensor(7.5),
        empty=torch.ones(0, 3),
        parameter=torch.nn.Parameter(base * 2),
        half=base.half(),
        bfloat16=base.bfloat16(),
        double=base.double(),
        long=base.long(),
        bool=base > 3,
    )
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=new)
    found = read_pth(path)
    assert list(found) == list(state)
    for name, value in state.items():
        expected = value.detach().float().numpy()
        assert found[name].shape == expected.shape
        assert np.array_equal(found[name].astype("f4"), expected), name
    assert found["half"].dtype == np.float16 and found["long"].dtype == np.int64
    assert list(read_pth(path, skip=("b", "s"))) == [n for n in state if n[0] not in "bs"]


@pytest.mark.parametrize("new", [True, False])
def test_reads_a_module_with_metadata_and_a_checkpoint(new, tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    path = tmp_path / "a.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=new)
    assert np.array_equal(read_pth(path)["0.weight"], module[0].weight.detach().numpy())
    moments = [torch.ones(5), torch.ones(7, dtype=torch.int64)]
    checkpoint = {"epoch": 3, "lr": 0.1, "m": moments, "state_dict": module.state_dict()}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=new)
    assert sorted(read_pth(path)) == ["0.bias", "0.weight"]
    torch.save(module, path, _use_new_zipfile_serialization=new)
    refuse(path, "torch.nn.modules", "nothing was executed", "state_dict()")


def test_reads_a_newer_pickle_protocol(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "a.pth", pickle_protocol=4)
    assert np.array_equal(read_pth(tmp_path / "a.pth")["a"], np.ones((2, 3)))


def test_reads_a_legacy_file_made_by_hand(file):
    v1 = Named("torch._utils", "_rebuild_tensor")
    root = collections.OrderedDict(
        a=tensor(storage("94", view=(None,))),
        b=Call(v1, storage("95", 6, "DoubleStorage", (None,)), 1, (2, 2), (1, 2)),
        version=3,
    )
    doubles = np.arange(6, dtype="<f8")
    path = file(legacy(root, {"94": (NUMBERS.tobytes(), 4), "95": (doubles.tobytes(), 8)}))
    found = read_pth(path)
    assert list(found) == ["a", "b"]
    assert np.array_equal(found["a"], NUMBERS.reshape(3, 4))
    assert np.array_equal(found["b"], [[1, 3], [2, 4]])
    assert list(read_pth(path, skip=("a",))) == ["b"]


def test_reads_python_2_strings(file):
    """A file from 2016: byte strings, and an OrderedDict made from a list of pairs."""
    pickled = (
        b"\x80\x02ccollections\nOrderedDict\n]](U\x01actorch._utils\n_rebuild_tensor\n"
        b"((U\x07storagectorch\nFloatStorage\nU\x0294U\x03cpuK\x0cNtQ"
        b"K\x00K\x03K\x04\x86K\x04K\x01\x86tRea\x85R."
    )
    whole = legacy({}, {"94": (NUMBERS.tobytes(), 4)}, keys=["94"])
    empty = dumps({})
    start = whole.index(empty, len(dumps(MAGIC) + dumps(1001) + dumps(SYSTEM)))
    path = file(whole[:start] + pickled + whole[start + len(empty) :])
    assert np.array_equal(read_pth(path)["a"], NUMBERS.reshape(3, 4))


def test_reads_a_zip_made_by_hand(file):
    found = read_pth(file(zipped({"a": tensor(storage())}, {"0": NUMBERS.tobytes()})))
    assert np.array_equal(found["a"], NUMBERS.reshape(3, 4))
    assert not found["a"].flags.writeable


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("container", ["zip", "legacy", "magic"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_executes_nothing(container, protocol, file, tmp_path):
    mark = tmp_path / "executed"
    evils = [
        Evil(os.system, f"touch {mark}"),
        Evil(eval, f"open({str(mark)!r}, 'w')"),
        Evil(getattr, Evil(__import__, "os"), "system"),
        {"a": [(1, Evil(os.mkdir, str(mark)))]},
    ]
    for evil in evils:
        pickled = pickle.dumps(evil, protocol)
        parts = [dumps(MAGIC), dumps(1001), dumps(SYSTEM), pickled]
        data = {
            "zip": zipped(pickled, {}),
            "legacy": b"".join(parts),
            "magic": pickled,
        }[container]
        refuse(file(data), *(["nothing was executed"] if protocol >= 2 else []))
        assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "exec"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "load"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch", "FloatStorage.__init__"),
        ("os", "system"),
    ],
)
def test_names_the_refused_global(module, name, file):
    root = {"a": Call(Named(module, name), b"x")}
    refuse(file(zipped(root, {})), f"{module}.{name}", "nothing was executed")


def test_allowed_names_cannot_be_misused(file):
    ordered, v2 = Named("collections", "OrderedDict"), Named("torch._utils", "_rebuild_tensor_v2")
    for root in (
        v2,
        {"a": Call(v2, 1, 2, 3, 4)},
        {"a": Call(v2)},
        {"a": Call(Named("torch", "FloatStorage"), 5)},
        {"a": Call(ordered, 5)},
        {"a": Call(ordered, [(1, 2, 3)])},
        {((), ()): 1},
        {"a": Stored("module", Named("torch", "FloatStorage"), "0", "cpu", 12)},
        {"a": Stored("storage", "FloatStorage", "0", "cpu", 12)},
        {"a": Stored("storage", v2, "0", "cpu", 12)},
        {"a": Stored("storage")},
        {"a": tensor(storage("../../etc/passwd"))},
        {"a": tensor(storage(view=(("0", 0, 12),)))},
        [1, 2],
        5,
    ):
        refuse(file(zipped(root, {"0": NUMBERS.tobytes()})))


def test_a_state_that_shadows_methods_is_dropped(file):
    """`BUILD` would set attributes on the dict; here it does nothing."""
    pickled = dumps(collections.OrderedDict(a=tensor(storage())))
    pickled = pickled[:-1] + b"}X\x05\x00\x00\x00items" + b"K\x01sb."
    assert list(read_pth(file(zipped(pickled, {"0": NUMBERS.tobytes()})))) == ["a"]


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (3, 5), (4, 1)),
        (1, (3, 4), (4, 1)),
        (13, (1,), (1,)),
        (0, (1 << 40,), (1,)),
        (0, (1 << 61, 1 << 61), (1, 1)),
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, (13,), (0,)),
        (0, (3, 4), (4,)),
        (-1, (3, 4), (4, 1)),
        (0, (3, 4), (4, -1)),
        (0, (-3, 4), (4, 1)),
        (0, (3.0, 4), (4, 1)),
        (0, (True, 4), (4, 1)),
        (0, (1,) * 40, (1,) * 40),
        (0, 12, 1),
        (1 << 62, (1,), (1,)),
    ],
)
@pytest.mark.parametrize("make", ["zip", "legacy"])
def test_shapes_that_lie(make, offset, size, stride, file):
    root = {"a": tensor(storage(), offset, size, stride)}
    data = NUMBERS.tobytes()
    refuse(file(zipped(root, {"0": data}) if make == "zip" else legacy(root, {"0": (data, 4)})))


def test_storages_that_lie(file):
    data = NUMBERS.tobytes()
    huge = {"a": tensor(storage(numel=1 << 60), size=(1 << 60,), stride=(1,))}
    refuse(file(zipped(huge, {"0": data})), "not as large")
    refuse(file(legacy(huge, {"0": (data, 4)})))
    whole = legacy(huge, {"0": (data, 4)})
    at = whole.rindex(struct.pack("<q", 12))
    refuse(file(whole[:at] + struct.pack("<q", 1 << 60) + data), "ends within")
    refuse(file(whole[:at] + struct.pack("<q", -1) + data))
    two = {"a": tensor(storage()), "b": tensor(storage(kind="IntStorage"))}
    refuse(file(zipped(two, {"0": data})))
    refuse(file(legacy(two, {"0": (data, 4)})))
    refuse(file(zipped({"a": tensor(storage("7"))}, {"0": data})))
    refuse(file(legacy({"a": tensor(storage())}, {})))
    refuse(file(legacy({"a": tensor(storage())}, {"0": (data, 4)}, keys=["0", "0"])))
    refuse(file(legacy({}, {"0": (data, 4)})))


def test_big_endian_is_refused(file):
    root = {"a": tensor(storage())}
    system = SYSTEM | {"little_endian": False}
    refuse(file(legacy(root, {"0": (NUMBERS.tobytes(), 4)}, system=system)), "big-endian")
    big = zipped(root, {"0": NUMBERS.tobytes()}, extra=[("archive/byteorder", b"big")])
    refuse(file(big), "big-endian")


def test_bombs(file):
    root = {"a": tensor(storage(numel=1 << 24), size=(1 << 24,), stride=(1,))}
    packed = zipped(root, {"0": bytes(1 << 26)}, compression=zipfile.ZIP_DEFLATED)
    assert len(packed) < 1 << 20
    refuse(file(packed), "compressed")
    refuse(file(zipped(b"\x80\x02" + b"0" * (1 << 21), {})), "larger")
    # Lengths and memo places of which nothing is there.
    for pickled in (
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x02X" + struct.pack("<I", (1 << 32) - 1) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
        b"\x80\x02K\x01j" + struct.pack("<I", 1 << 31) + b".",
    ):
        refuse(file(zipped(pickled, {})))
        refuse(file(pickled))
    assert read_pth(file(zipped(b"\x80\x02}r" + struct.pack("<I", (1 << 32) - 1) + b".", {}))) == {}
    # Pairs of pairs, sixty deep: hashing, comparing or printing one would not end.
    deep = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60
    for end in (b"}h\x00K\x01s.", b".", b"\x85R.", b"Q.", b"R."):
        refuse(file(zipped(deep + end, {})))
        refuse(file(dumps(MAGIC) + deep + end))


def test_empty_and_other_files(file, tmp_path):
    refuse(file(b""))
    refuse(file(b"GIF89a" + bytes(100)))
    refuse(file(zipped(b"", {})))
    refuse(file(legacy({}, {}, magic=7)), "torch.save")
    refuse(tmp_path / "absent.pth", "cannot be read")
    refuse(tmp_path, "cannot be read")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme", "x")
    refuse(file(stream.getvalue()), "data.pkl")


ROOT = {"a": tensor(storage()), "b": tensor(storage("1"), 0, (12,), (1,))}
WHOLE = {
    "zip": zipped(ROOT, {"0": NUMBERS.tobytes(), "1": NUMBERS.tobytes()}),
    "legacy": legacy(ROOT, {k: (NUMBERS.tobytes(), 4) for k in "01"}),
}


@pytest.mark.parametrize("container", WHOLE)
def test_truncated_anywhere(container, file):
    data = WHOLE[container]
    assert len(read_pth(file(data))) == 2
    for end in range(0, len(data), 3):
        refuse(file(data[:end]))


@pytest.mark.parametrize("container", WHOLE)
@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4))
def test_damaged_anywhere(container, changes, tmp_path):
    """Either a clean error or arrays: no other exception, no memory that is not there."""
    data = bytearray(WHOLE[container])
    for position, value in changes:
        data[position % len(data)] = value
    path = tmp_path / "damaged.pth"
    path.write_bytes(data)
    try:
        found = read_pth(path)
    except JaxstyleError as error:
        assert "\n" not in str(error)
    else:
        assert all(array.size <= 48 for array in found.values())
