"""Each format does what a user does with it, on images that the export did not see."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nas_engine.exports.json import export_state_dict, load_network
from nas_engine.exports.onnx import export_onnx
from nas_engine.exports.torch_export import export_torch_export

pytestmark = pytest.mark.slow  # tracing for ONNX takes seconds

BATCHES = (1, 2, 5, 24)


def expected(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits = model(images)
    model.train()
    return logits


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", BATCHES)
def test_onnx_runtime_computes_the_same_for_any_batch_size(exported, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(exported.folder / "best.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["images", "logits"]
    assert session.get_inputs()[0].shape == ["batch", *exported.unseen.shape[1:]]
    images = exported.unseen[:batch]
    (logits,) = session.run(None, {"images": images.numpy()})
    close(torch.from_numpy(logits), expected(exported.model, images))


def test_onnx_is_one_file_with_its_description(exported) -> None:
    model = onnx.load(str(exported.folder / "best.onnx"), load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    (entry,) = model.metadata_props
    assert entry.key == "description"
    assert json.loads(entry.value)["classes"] == list("0123456789")


@pytest.mark.parametrize("batch", BATCHES)
def test_torch_export_computes_the_same_for_any_batch_size(exported, batch: int) -> None:
    described = {"description.json": ""}
    program = torch.export.load(exported.folder / "best.pt2", extra_files=described).module()
    images = exported.unseen[:batch]
    close(program(images), expected(exported.model, images))
    assert json.loads(described["description.json"])["normalisation"]["mean"] == [0.3]


def test_files_do_not_carry_paths_of_this_machine(exported) -> None:
    home = str(Path(__file__).parents[2]).encode()
    for file in exported.files:
        assert home not in file.path.read_bytes()


def test_weights_and_json_rebuild_the_network(exported) -> None:
    network = load_network(exported.folder / "weights.pt")
    assert not network.training
    with torch.no_grad():
        assert torch.equal(network(exported.unseen), expected(exported.model, exported.unseen))
    entry = json.loads((exported.folder / "architecture.json").read_text())
    assert entry["class"] == type(exported.model).__qualname__
    assert entry["description"]["bad"] is None


def test_the_python_file_is_a_module_with_torch_alone(nasbench201, tmp_path: Path) -> None:
    torch.save(nasbench201.unseen, tmp_path / "images.pt")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from best import DESCRIPTION, load\n"
        "import torch\n"
        "model = load()\n"
        "assert not model.training and DESCRIPTION['bad'] is None\n"
        "torch.save(model(torch.load('images.pt')).detach(), 'logits.pt')\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('nas_engine', 'onnx', 'pydantic')])"
    )
    command = [sys.executable, "-I", "-B", "-c", program, str(nasbench201.folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    close(torch.load(tmp_path / "logits.pt", weights_only=True), expected(nasbench201.model, nasbench201.unseen))


def test_the_python_file_checks_itself(nasbench201, tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(nasbench201.folder / "best.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    parameters = sum(parameter.numel() for parameter in nasbench201.model.parameters())
    assert f"NASBench201Network: {parameters:,} parameters" in done.stdout


def test_the_python_file_notices_foreign_logits(nasbench201, tmp_path: Path) -> None:
    text = (nasbench201.folder / "best.py").read_text()
    shifted = re.sub(r"(return network\.eval\(\))", r"network.head[-1].bias.data += 1\n    \1", text, count=1)
    assert shifted != text
    (tmp_path / "mixed.py").write_text(shifted)
    done = subprocess.run([sys.executable, "-I", str(tmp_path / "mixed.py")], capture_output=True, text=True)
    assert done.returncode != 0
    assert "differ by 1.0e+00" in done.stdout
    assert "more than rounding" in done.stderr


def test_one_example_image_is_enough_and_nothing_is_printed(
    third_party, images, tmp_path: Path, capfd, recwarn
) -> None:
    small = third_party()
    assert export_onnx(small, images[:1], tmp_path / "new" / "a.onnx") < 1e-4
    assert export_torch_export(small, images[:1], tmp_path / "new" / "a.pt2") < 1e-5
    assert export_state_dict(small, images[:1], tmp_path / "new" / "a.pt") == 0
    assert capfd.readouterr() == ("", "")
    assert not [warning for warning in recwarn if "torch" in str(warning.filename)]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "a.onnx",
        "a.pt",
        "a.pt2",
        "architecture.json",
    ]
