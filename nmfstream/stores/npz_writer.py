"""NPZ outputs: an NPY in progress that becomes a member of the archive at the end."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from nmfstream.storage import durable
from nmfstream.storage.durable import DurableFile
from nmfstream.stores import npy_writer
from nmfstream.stores.offset_writer import OffsetWriter, begin
from nmfstream.stores.outputs import Making, Output

_SLICE = 4 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


class NpzWriter(OffsetWriter):
    """Rows go into an NPY; `commit` wraps it."""

    member = "W"

    def _publish(self, overwrite: bool) -> None:
        publish_archive(self.final, [(self.member, self._file)], overwrite=overwrite)
        durable.remove(self._file.path)


def publish_archive(
    final: Path, members: Iterable[tuple[str, DurableFile | bytes]], *, overwrite: bool = False
) -> None:
    """Write NPYs as the (stored) members of an NPZ, whole under its final name or not there."""
    target = durable.temporary(final)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, file in members:
                _add(archive, name, file)
        target.sync()
        target.close()
        durable.publish(target.path, final, overwrite=overwrite)
    except BaseException:
        durable.discard(target)
        raise


def _add(archive: zipfile.ZipFile, name: str, file: DurableFile | bytes) -> None:
    if isinstance(file, bytes):
        archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), file)
        return
    size = file.size()
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
        for at in range(0, size, _SLICE):
            member.write(file.pread(min(_SLICE, size - at), at))


def open_npz(output: Output, making: Making) -> NpzWriter:
    """Begin or continue an NPZ output."""
    file, offset, resumed = begin(
        output.path,
        making.partial,
        making.resume,
        lambda f: npy_writer.lay(f, making),
        lambda f: npy_writer.find(f, making),
    )
    writer = NpzWriter(file, offset, making, output.path, resumed=resumed)
    writer.member = output.dataset
    return writer
