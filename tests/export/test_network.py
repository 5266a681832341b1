"""What export_network promises: a manifest of checked files, an unchanged model, and no silent mismatch."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import logging
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from torch import nn

from nas_engine.errors import ConfigError, ExportError
from nas_engine.exports import FORMATS, export_network, export_one
from nas_engine.exports.check import Reference
from nas_engine.exports.manifest import jsonable


def alter_onnx(path: Path) -> None:
    model = onnx.load(str(path))
    tensor = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    tensor.CopyFrom(onnx.numpy_helper.from_array(1.2 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, str(path))


def alter_torch_export(path: Path) -> None:
    program = torch.export.load(path)
    with torch.no_grad():
        max(program.state_dict.values(), key=torch.numel).mul_(1.2)
    torch.export.save(program, path)


def altered(content: bytes) -> bytes:
    state = torch.load(io.BytesIO(content), weights_only=True)
    max(state.values(), key=torch.numel).mul_(1.2)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def alter_state_dict(path: Path) -> None:
    path.write_bytes(altered(path.read_bytes()))


def alter_python(path: Path) -> None:
    text = path.read_text()
    packed = re.search(r'_WEIGHTS = """\n(.*?)"""', text, re.DOTALL)[1]
    content = altered(zlib.decompress(base64.b64decode(packed)))
    text = text.replace(packed, base64.encodebytes(zlib.compress(content)).decode())
    path.write_text(text.replace("    _check()", "    pass"))  # else the file would notice by itself


ALTER = {
    "onnx": alter_onnx,
    "torch_export": alter_torch_export,
    "state_dict": alter_state_dict,
    "python": alter_python,
}


@pytest.mark.slow
def test_the_manifest_tells_all_about_each_file(exported) -> None:
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    assert [entry["format"] for entry in manifest["files"]] == [
        "onnx", "torch_export", "state_dict", "state_dict", "python",
    ]  # fmt: skip
    for entry, file in zip(manifest["files"], exported.files, strict=True):
        content = (exported.folder / entry["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert entry["verified"] is True
        assert 0 <= entry["max_abs_difference"] <= entry["tolerance"] < 0.1
        assert (file.max_abs_difference, file.path.name) == (entry["max_abs_difference"], entry["file"])
        assert file.verified
    assert manifest["failures"] == {}
    assert manifest["compared_images"] == 16
    assert manifest["input"]["shape"] == ["batch", *exported.unseen.shape[1:]]
    assert manifest["output"]["shape"] == ["batch", 10]
    assert manifest["description"]["normalisation"] == {"mean": [0.3], "std": [0.4]}
    assert manifest["description"]["classes"] == list("0123456789")
    assert manifest["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "onnx", "onnxscript", "onnxruntime"} <= set(manifest["versions"])


@pytest.mark.slow
def test_nothing_else_is_left_in_the_folder(exported) -> None:
    listed = {file.path.name for file in exported.files}
    assert {path.name for path in exported.folder.iterdir()} == listed | {"manifest.json"}


def copied(exported, format: str, folder: Path) -> Path:
    """The files of one format, which agreed when they were exported, in another folder."""
    for name in FORMATS[format].files:
        shutil.copy(exported.folder / name, folder)
    return folder / FORMATS[format].files[0]


@pytest.mark.slow
@pytest.mark.parametrize("format", ALTER)
def test_one_altered_weight_is_noticed(nasbench201, tmp_path: Path, format: str) -> None:
    path = copied(nasbench201, format, tmp_path)
    ALTER[format](path)
    agreement = FORMATS[format].compare(Reference.of(nasbench201.model, nasbench201.shown), path)
    assert agreement.difference > agreement.tolerance
    assert not agreement.holds


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_file_does_not_load(nasbench201, tmp_path: Path, format: str) -> None:
    path = copied(nasbench201, format, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ExportError, match=str(path)) as caught:
        FORMATS[format].compare(Reference.of(nasbench201.model, nasbench201.shown), path)
    assert "\n" not in str(caught.value)


def test_a_mismatch_fails_and_is_marked_but_kept(small, images, tmp_path: Path, monkeypatch) -> None:
    good = FORMATS["state_dict"]

    def write(reference, path, description):
        good.write(reference, path, description)
        alter_state_dict(path)

    monkeypatch.setitem(FORMATS, "state_dict", dataclasses.replace(good, write=write))
    with pytest.raises(ExportError, match="does not agree with the trained network"):
        export_network(small, images, tmp_path, formats=["state_dict"], description={})
    assert (tmp_path / "weights.pt").is_file()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [entry["verified"] for entry in manifest["files"]] == [False, False]
    assert manifest["files"][0]["max_abs_difference"] > manifest["files"][0]["tolerance"]
    assert "does not agree" in manifest["failures"]["state_dict"]
    with pytest.raises(ExportError, match="does not agree"):
        export_one(small, images, tmp_path / "one.pt", format="state_dict", description={})


def test_nan_from_a_file_is_a_mismatch(small, images, tmp_path: Path) -> None:
    reference = Reference.of(small, images)
    assert reference.difference(lambda batches: [torch.full((len(b), 10), torch.nan) for b in batches]) == float("inf")
    assert reference.difference(lambda batches: [torch.zeros(len(b), 9) for b in batches]) == float("inf")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(small, images, tmp_path: Path, training: bool) -> None:
    small.train(training)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    export_network(small, images, tmp_path, formats=["torch_export", "state_dict"], description={})
    assert small.training is training
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in small.parameters())


def test_each_format_is_written_once_and_logging_levels_return(small, images, tmp_path: Path) -> None:
    logging.getLogger("torch.export").setLevel(logging.INFO)
    files = export_network(small, images, tmp_path, formats=["torch_export", "torch_export"], description={})
    assert len(files) == 1
    assert logging.getLogger("torch.export").level == logging.INFO
    logging.getLogger("torch.export").setLevel(logging.NOTSET)


def test_an_unknown_format_is_refused_before_anything_is_written(small, images, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown export format 'onx': did you mean 'onnx'"):
        export_network(small, images, tmp_path / "new", formats=["state_dict", "onx"], description={})
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="'pickle'"):
        export_one(small, images, tmp_path / "a", format="pickle", description={})


def test_a_network_with_nan_weights_is_refused(small, images, tmp_path: Path) -> None:
    nn.init.constant_(next(small.parameters()), torch.nan)
    with pytest.raises(ExportError, match="NaN"):
        export_network(small, images, tmp_path, formats=["state_dict"], description={})


def test_images_of_a_wrong_shape_are_refused(small, images, tmp_path: Path) -> None:
    for wrong in (images[:0], images[0]):
        with pytest.raises(ExportError, match="example images"):
            export_network(small, wrong, tmp_path, formats=["state_dict"], description={})


def test_a_network_with_another_output_is_refused(images, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="one tensor"):
        export_network(nn.Conv2d(1, 2, 3), images, tmp_path, formats=["onnx"], description={})


def test_a_folder_that_cannot_be_written(small, images, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="choose another") as caught:
        export_network(small, images, tmp_path / "file" / "export", formats=["state_dict"], description={})
    assert "\n" not in str(caught.value)


def test_a_description_that_is_no_json(small, images, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="of type object"):
        export_network(small, images, tmp_path, formats=["state_dict"], description={"a": [object()]})


def test_plain_values() -> None:
    value = {1: (np.int64(2), np.float32(0.5), float("inf")), "a": None, "b": True, "c": torch.tensor(3)}
    assert jsonable(value) == {"1": [2, 0.5, None], "a": None, "b": True, "c": 3}
