"""GGUF files made by hand, also such as lie: what is written is what was asked for, checked by nobody."""

import struct

import numpy as np

STRING, ARRAY = 8, 9
KINDS = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}


def string(text):
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def value(of):
    """The type and bytes of a metadata value: bool, int (u32), float (f32), str, or a list of one of them."""
    if isinstance(of, (str, bytes)):
        return STRING, string(of)
    if isinstance(of, list):
        kinds, parts = zip(*map(value, of)) if of else ((4,), ())
        return ARRAY, struct.pack("<IQ", kinds[0], len(of)) + b"".join(parts)
    kind, form = KINDS[type(of)]
    return kind, struct.pack(form, of)


def entry(key, of=None, raw=None):
    """A metadata entry; raw: (type, bytes) as they are."""
    kind, data = raw or value(of)
    return string(key) + struct.pack("<I", kind) + data


def tensor_info(name, shape, type_id, offset, axes=None):
    sizes = b"".join(struct.pack("<q", size) for size in reversed(shape))
    return string(name) + struct.pack("<I", len(shape) if axes is None else axes) + sizes + struct.pack(
        "<IQ", type_id, offset
    )  # fmt: skip


def file_of(entries, infos, data=b"", *, magic=b"GGUF", version=3, tensors=None, count=None, alignment=32):
    """The bytes of a file; tensors and count stand in for the true numbers of tensors and entries."""
    head = magic + struct.pack("<I", version)
    head += struct.pack("<q", len(infos) if tensors is None else tensors)
    head += struct.pack("<q", len(entries) if count is None else count)
    head += b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def write(path, metadata, tensors, alignment=32):
    """An honest file: metadata {key: value}, tensors {name: (type id, shape, bytes)}."""
    infos, data = [], b""
    for name, (type_id, shape, raw) in tensors.items():
        infos.append(tensor_info(name, shape, type_id, len(data)))
        data += raw + bytes(-len(raw) % alignment)
    path.write_bytes(file_of([entry(*item) for item in metadata.items()], infos, data, alignment=alignment))
    return path


def float32(array):
    """(type id, shape, bytes) of a tensor in F32."""
    array = np.ascontiguousarray(array, "<f4")
    return 0, array.shape, array.tobytes()
