"""Malicious files: each is refused with one line.

Each table is one attack: XML entities, media names outside the folder, archives, pickles, HDF5
links, YAML tags and aliases, templates, images and masks that are small on disk and huge in memory.
The last tests check that the package itself never loads a file in a way that executes it.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import molmo_tune
from molmo_tune.errors import UserError
from molmo_tune.labels.read import READERS, read_labels
from molmo_tune.labels.survey import detect_format
from molmo_tune.media.image import image_size
from molmo_tune.recipe.yaml_lines import read_yaml
from molmo_tune.templates.wording import render
from tests.label_inputs import drawn, labelme, via, via_region
from tests.labels.cases import BASIC, ROOT
from tests.labels.fuzz import LIMIT_S, limits
from tests.labels.media import draw_media

SIZE = (20, 10)


def put_golden(name: str, folder: Path) -> Path:
    """The golden label file of a format, without media."""
    return BASIC[name].write(folder, draw=False).label_file


def options_of(name: str, folder: Path) -> dict[str, object]:
    """What `read_labels` needs beside the paths."""
    return dict(BASIC[name].write(folder, draw=False).options)


# --------------------------------------------------------------------------------------------- XML

XML = {name: reader for name, reader in READERS.items() if reader.pattern in ("*.xml", "*.eaf")}
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 30))
DECLARED = {
    "entities that grow": f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>',
    "a long entity, often": f'<!DOCTYPE x [<!ENTITY l29 "{"ha" * 50_000}">]>',
    "an external entity": '<!DOCTYPE x [<!ENTITY l29 SYSTEM "file:///etc/passwd">]>',
    "an external parameter": '<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    "an external declaration": '<!DOCTYPE x SYSTEM "http://example.invalid/x.dtd">',
    "a mere declaration": "<!DOCTYPE x>",
}


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize("name", XML)
def test_xml_with_a_doctype_is_refused_before_parsing(tmp_path, name, declared):
    path = put_golden(name, tmp_path)
    text = path.read_text().partition("?>")
    body = text[2] or text[0]
    path.write_text(DECLARED[declared] + body.replace(">", ">&l29;", 1))
    with limits(), pytest.raises(UserError, match="declares a document type or entities"):
        read_labels(name, path)


def test_all_xml_formats_are_in_the_table():
    assert set(XML) == {"cvat_video", "cvat_images", "cvat_tags", "pascal_voc", "elan"}


# ---------------------------------------------------------------------------------- media names

NAMED = {name: case.media_name for name, case in BASIC.items() if case.media_name}
BY_LIBRARY = {"sleap", "tapvid_trusted"}  # below
ELSEWHERE = (
    "../outside/{}",
    "..\\outside\\{}",
    "{outside}/{}",
    "file://{outside}/{}",
    "x/../../outside/{}",
    "/../outside/{}",
    "../outside/./{}",
)


def test_every_format_states_what_names_its_media():
    for name, case in BASIC.items():
        assert case.media_name != "" or name in BY_LIBRARY, f"{case.folder}/case.json: media_name"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return draw_media(tmp_path_factory.mktemp("clip") / "clip.mp4", (100, 50))


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("name", NAMED)
def test_no_format_opens_files_outside_the_media_folder(tmp_path, clip, name, elsewhere):
    path = put_golden(name, tmp_path / "labels")
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    shutil.copy(clip, outside / "clip.mp4")
    shutil.copy(clip, outside / "1_224p.mkv")
    for picture in ("a.png", "A.png"):
        Image.new("RGB", SIZE).save(outside / picture)
    token = NAMED[name]
    word = next(
        w for w in ("clip.mp4", "a.png", "clip", "A.png", "") if w in token.replace("_", "")
    )
    harmful = elsewhere.format(word, outside=outside)
    if path.suffix in (".json", ".jsonl"):
        harmful = json.dumps(harmful)[1:-1]
    case = BASIC[name]
    file = tmp_path / "labels" / case.media_name_file if case.media_name_file else path
    text = file.read_text()
    assert token in text
    named = token if token.startswith(("/", "..", "file:", "https:", "val/", "england")) else word
    file.write_text(text.replace(token, token.replace(named, harmful)))
    options = options_of(name, tmp_path / "options")
    with pytest.raises(UserError) as caught:
        read_labels(name, path, inside, **options)
    assert "\n" not in str(caught.value)


def test_symlinked_folders_are_not_followed(tmp_path):
    path = put_golden("coco", tmp_path / "labels")
    (tmp_path / "outside").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "outside" / "a.png")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=r"no file 'a\.png'"):
        read_labels("coco", path, tmp_path / "inside")


@pytest.mark.parametrize("name", ["http://[", "//[x]/a.png", "a\0.png", "x" * 5000, "http://x:y/z"])
@pytest.mark.parametrize(
    "format", ["label_studio_image", "label_studio_video", "coco", "jsonl", "elan", "pixmo_count"]
)
def test_invalid_names_are_errors(tmp_path, format, name):
    path = put_golden(format, tmp_path)
    name = name.replace("\0", "&#1;") if path.suffix == ".eaf" else json.dumps(name)[1:-1]
    path.write_text(path.read_text().replace(NAMED[format], name))
    (tmp_path / "media").mkdir()
    with pytest.raises(UserError):
        read_labels(format, path, tmp_path / "media")


# ---------------------------------------------------------------------------- archives and pickles


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../climbed.txt", "x")
        archive.writestr("annotations.xml", "<annotations/>")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../../climbed.txt")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    return stream.getvalue()


class Harmful:
    """Object that creates a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", READERS)
def test_archives_are_refused_and_nothing_is_unpacked(tmp_path, name):
    if name == "sleap":
        pytest.importorskip("sleap_io")
    suffix = Path(
        READERS[name].pattern.replace("[sh][l5]*", "slp").replace("[acjp][ars][rvo]", "csv")
    )
    path = tmp_path / "a" / "b" / f"x{suffix.suffix.rstrip('*')}"
    path.parent.mkdir(parents=True)
    options = options_of(name, tmp_path / "options")
    shutil.rmtree(tmp_path / "options")
    for content in (zipped(), tarred()):
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_labels(name, path, **options)
        with pytest.raises(UserError, match=r"archive; .*unpack it first"):
            detect_format(path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", [name for name in READERS if name != "sleap"])
def test_pickles_are_not_executed(tmp_path, name, protocol):
    mark, path = tmp_path / "ran", tmp_path / "clip.pkl"
    path.write_bytes(pickle.dumps({"clip": Harmful(mark)}, protocol))
    options = options_of(name, tmp_path / "options")
    with pytest.raises(UserError):
        read_labels(name, path, **options)
    assert not mark.exists()


def test_trusted_pickles_build_only_arrays(tmp_path, clip):
    shutil.copy(clip, tmp_path / "clip.mp4")
    path = tmp_path / "x.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVzlib\ntR.")
    with pytest.raises(UserError, match="not a valid pickle"):
        read_labels("tapvid_trusted", path)
    for name in ("../clip", "/etc/passwd"):
        data = pickle.loads((ROOT / "tapvid_trusted" / "basic" / "tapvid.pkl").read_bytes())
        path.write_bytes(pickle.dumps({name: data["clip"]}))
        with pytest.raises(UserError):
            read_labels("tapvid_trusted", path)
    nested: tuple[object, ...] = ()
    for _ in range(15):
        nested = (nested, nested)
    path.write_bytes(pickle.dumps({nested: {}}))
    with limits(), pytest.raises(UserError, match="not a dictionary of videos"):
        read_labels("tapvid_trusted", path)


# -------------------------------------------------------------------------------------------- HDF5


@pytest.mark.parametrize("kind", ["link", "values", "virtual"])
def test_hdf5_that_refers_to_other_files_is_refused(tmp_path, monkeypatch, kind):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.slp"
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        group = file.create_group("a/b")
        if kind == "link":
            group["c"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((1,), "u1")
            layout[0] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (1,))[0]
            group.create_virtual_dataset("c", layout)
        else:
            outside = [(str(tmp_path / "secret"), 0, 64)]
            group.create_dataset("c", (64,), "u1", external=outside)

    def load_file(_: str) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setitem(sys.modules, "sleap_io", SimpleNamespace(load_file=load_file))
    with pytest.raises(UserError, match=r"refers to another file \(/?a/b/c\)"):
        read_labels("sleap", path)


# -------------------------------------------------------------------------------------------- YAML

TAGS = (
    "!!python/object/apply:os.mkdir [{mark}]",
    "!!python/name:os.system",
    "!!python/object/new:type [x, [], {{}}]",
    "!!python/module:antigravity",
)
ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags_build_nothing(tmp_path, tag):
    mark = tmp_path / "ran"
    text = f"names: {tag.format(mark=mark)}\n"
    assert read_yaml(text).faults
    _refuses_classes(tmp_path, text)
    assert not mark.exists()


@pytest.mark.parametrize("names", ["*a29", "{0: *a29}", "[*a29, *a29]"])
def test_yaml_aliases_do_not_exhaust_memory(tmp_path, names):
    with limits():
        assert read_yaml(f"{ALIASES}names: {names}\n").faults
        _refuses_classes(tmp_path, f"{ALIASES}names: {names}\n")


def _refuses_classes(folder: Path, text: str) -> None:
    path = BASIC["yolo"].write(folder).path
    (folder / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml"):
        read_labels("yolo", path)


# --------------------------------------------------------------------------------------- templates

WORDINGS = (
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ label.__init__.__globals__ }}",
    "{{ label['__class__'] }}",
    "{{ label|attr('__class__') }}",
    "{{ label|map(attribute='__class__')|list }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.system('x') }}",
    "{{ lipsum.__globals__ }}",
    "{{ range(1000000000) }}",
    "{% for i in range(1000000000) %}{% endfor %}",
    "{% for a in label %}{% for b in label %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 1000000000 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 1 << 9999999999 }}",
    "{{ '%1000000000s'|format(label) }}",
    "{{ label|center(1000000000) }}",
    "{{ label|indent(1000000000) }}",
    "{{ label.upper() }}",
    "{{ label.format(x=1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '/etc/passwd' %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x = label %}{{ x }}",
    "{% call label() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "{{ '" + "a" * 5000 + "'|replace('a', '" + "a" * 5000 + "') }}",
    "{{ label" + "|replace('a', 'aaaaaaaaaa')" * 40 + " }}",
    "{{ nothing }}",
)


@pytest.mark.parametrize("wording", WORDINGS, ids=range(len(WORDINGS)))
def test_templates_cannot_reach_program_internals_or_run_long(wording):
    with limits(), pytest.raises(UserError) as caught:
        render(wording, {"label": "a cat"}, where="template")
    assert len(str(caught.value)) < 1000


# -------------------------------------------------------------------------- small files, huge sizes


def bomb(width: int, height: int, mode: int = 2) -> bytes:
    """Return a PNG of a few bytes that states a given size (mode 2 RGB, 3 palette, 0 grayscale)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(6)) if mode == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + palette + pixels + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """Return a small image followed by a 200 MB comment."""
    stream = io.BytesIO()
    Image.new("RGB", SIZE).save(stream, "png")
    body = b"zTXteXIf\0\0" + zlib.compress(bytes(200_000_000), 9)
    remark = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = stream.getvalue()
    return data[:33] + remark + data[33:]


@pytest.mark.parametrize("content", [bomb(100_000, 100_000), bomb(2**31 - 1, 1), text_bomb()])
def test_huge_images_are_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with limits(), pytest.raises(UserError, match="not an image that opens"):
        image_size(tmp_path / "x.png")
    path = BASIC["coco"].write(tmp_path).path
    (tmp_path / "a.png").write_bytes(content)
    with limits(), pytest.raises(UserError, match="missing or unreadable"):
        read_labels("coco", path)


def test_huge_masks_are_refused(tmp_path, clip):
    shutil.copy(clip, tmp_path / "clip.mp4")
    palette = tmp_path / "masks" / "clip" / "00000.png"
    palette.parent.mkdir(parents=True)
    palette.write_bytes(bomb(100_000, 100_000, 3))
    with limits(), pytest.raises(UserError, match="not an image of object IDs"):
        read_labels("mask_folder", palette.parent, tmp_path)
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    png = base64.b64encode(bomb(100_000, 100_000, 0)).decode()
    (tmp_path / "a.json").write_text(labelme(drawn("mask", (1, 2), (3, 3), mask=png)))
    with limits(), pytest.raises(UserError, match="not a PNG that fits the image"):
        read_labels("labelme", tmp_path / "a.json")


HUGE = 10**9
SIZES = {
    "coco": ('"size": [10, 20]', f'"size": [{HUGE}, {HUGE}]'),
    "cvat_images": ('width="3" height="2"', f'width="{HUGE}" height="{HUGE}"'),
    "sav": ('"size": [50, 100]', f'"size": [{HUGE}, {HUGE}]'),
    "youtube_vis": ('"size": [50, 100]', f'"size": [{HUGE}, {HUGE}]'),
    "via": ('"cx": 10', f'"cx": {HUGE}'),
    "labelme": ('"imageWidth": 20', f'"imageWidth": {HUGE}'),
    "mot": ("1,1,11,21,20,10", f"{HUGE},1,11,21,20,10"),
    "activitynet": ("[0.25, 1.5]", f"[0.25, {HUGE}]"),
    "sot": ("10,10,20,20", f"10,10,{HUGE},20"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_in_label_files_allocate_no_memory(tmp_path, clip, name):
    shutil.copy(clip, tmp_path / "clip.mp4")
    path = put_golden(name, tmp_path)
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    old, new = SIZES[name]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with limits():
        try:
            _, report = read_labels(name, path, tmp_path)
        except UserError:
            return
    assert report.dropped or any(count.clipped for count in report.counts)


def test_jsonl_masks_are_limited_like_images(tmp_path):
    mask = {"counts": "0", "size_hw": [HUGE, HUGE]}
    for size, digits in ((HUGE, 13), (2**20, 9)):
        value, text = size * size, ""
        for _ in range(digits):
            value, digit = value >> 5, value & 31
            text += chr(48 + (digit | 32 if value else digit))
            if not value:
                break
        mask = {"counts": text + "0", "size_hw": [size, size]}
        note = {"kind": "instance", "id": "0", "label": "a", "mask": mask}
        media = {"kind": "image", "paths": [str(tmp_path / "a.png")]}
        record = {"format": "molmo-tune/1", "id": "s", "media": media, "annotations": [note]}
        Image.new("RGB", SIZE).save(tmp_path / "a.png")
        (tmp_path / "x.jsonl").write_text(json.dumps(record))
        with limits(), pytest.raises(UserError, match=r"mask\.(counts|size_hw)"):
            read_labels("jsonl", tmp_path / "x.jsonl")


@pytest.mark.parametrize("name", ["coco", "via", "cvat_images"])
def test_repeated_ids_are_not_slow(tmp_path, name):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    many = 100_000
    if name == "coco":
        path = put_golden("coco", tmp_path)
        data = json.loads(path.read_text())
        data["annotations"] = [{**data["annotations"][0], "id": 1}] * many
        path.write_text(json.dumps(data))
    elif name == "via":
        path = tmp_path / "x.json"
        path.write_text(via(*[via_region("point", cx=1, cy=1)] * many))
    else:
        path = put_golden("cvat_images", tmp_path)
        box = '<box label="cat" xtl="2" ytl="3" xbr="6" ybr="8"/>\n'
        path.write_text(path.read_text().replace("<polygon", box * (many // 10) + "<polygon", 1))
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    start = time.process_time()
    (sample,), _ = read_labels(name, path)
    assert len(sample.annotations) >= many // 10
    assert time.process_time() - start < 3 * LIMIT_S


MANY = 20_000
WORDS = ("1", "1,", "1 ", "0.0", "1e", "-", ".", ",", " ", "[", "{", '"')
ELEMENTS = ("<image ", "<track ", "<annotations ", '<image name="frame_')
KEYS = ("videos", "shapes", "annotations", "format", "type")
# beginnings on which a careless format pattern backtracks
LONG = {
    **{word: word * MANY for word in (*WORDS, *ELEMENTS)},
    **{key: "{" + f'"{key}" ' * MANY for key in KEYS},
    "numbers": ",".join(["1" * MANY] * 8) + "x",
    "numbers apart": " ".join(["0 2 Car 0 0", *["1" * MANY] * 4]) + " x",
    "a number": "1,2," + "3" * MANY + "x",
    "blanks": '{"videos"' + " " * MANY + "x",
    "rows": "0 " + "0.1 " * MANY + "x",
    "a mask": "1 1001 1 50 100 " + "P" * MANY + " x",
}


@pytest.mark.parametrize("beginning", LONG)
def test_format_detection_is_fast(tmp_path, beginning):
    path = tmp_path / "x.json"
    path.write_text(LONG[beginning])
    start = time.process_time()
    with limits(), suppress(UserError):
        detect_format(path)
    assert time.process_time() - start < LIMIT_S / 2


# ------------------------------------------------------------------------------- the package itself

# calls that execute file contents, and the argument that makes them safe
SAFE_WITH = {"torch.load": "weights_only", "np.load": "allow_pickle"}
NEVER = {
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads", "eval"),
    *(
        "exec",
        "os.system",
        "os.popen",
        "joblib.load",
        "marshal.loads",
        "shelve.open",
        "pd.read_pickle",
    ),
}


def calls() -> list[tuple[str, str, ast.Call]]:
    root = Path(molmo_tune.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((str(path.relative_to(root)), ast.unparse(node.func), node))
    return found


def test_package_makes_no_call_that_executes_file_contents():
    found = calls()
    for path, name, node in found:
        assert name not in NEVER, path
        given = {word.arg: word.value for word in node.keywords}
        shell = given.get("shell")
        assert not (isinstance(shell, ast.Constant) and shell.value), path
        if name in SAFE_WITH:
            safe = given.get(SAFE_WITH[name])
            assert isinstance(safe, ast.Constant), (path, name)
            assert safe.value is (name == "torch.load"), (path, name)
    assert {name for _, name, _ in found} >= set(SAFE_WITH)


def test_object_arrays_are_not_loaded(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([Harmful(tmp_path / "ran")], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path, allow_pickle=False)
    assert not (tmp_path / "ran").exists()
