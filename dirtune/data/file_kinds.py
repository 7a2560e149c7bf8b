"""Kinds of files that are often given in place of a table or an image, recognized by their first bytes."""

from pathlib import Path

_BEGINS = {
    b"version https://git-lfs.github.com/": "a pointer of Git LFS (`git lfs pull` fetches the file)",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; unpack it",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save its sheet as csv",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save its sheet as csv",
    b"PAR1": "a Parquet file; its name must end with .parquet",
    b"\x93NUMPY": "an array of numpy (.npy)",
    b"%PDF": "a PDF file",
    b"<svg": "an SVG drawing; export it as PNG",
    b"<?xml": "an XML file",
}
_HEIC = {b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"}
# DICOM files have a preamble of 128 bytes.
_READ = 132


def describe_kind(path: Path) -> str:
    """Return what a file is if its first bytes are those of another kind than a table or an image, else ""."""
    with path.open("rb") as stream:
        start = stream.read(_READ)
    if not start:
        return "empty"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        return "a HEIC image; convert it to JPEG or PNG"
    if start[128:] == b"DICM":
        return "a DICOM file; export it as PNG or TIFF"
    return next((kind for begin, kind in _BEGINS.items() if start.startswith(begin)), "")
