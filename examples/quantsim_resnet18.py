"""AIMET's QuantSim example with one import changed: a ResNet-18 is prepared, simulated, calibrated, fine-tuned,
evaluated and exported.

The weights are random and so are the images (with the label in their colour, so that there is something to learn);
give --images to make it longer. Writes to build/quantsim_resnet18/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qir import QirError, QuantizationSimModel, QuantScheme, load_checkpoint, prepare_model, save_checkpoint
from qir.progress import track
from tests.torchvision_cpu import torchvision_models

SIZE, CLASSES, BATCH = 64, 10, 16
FLOAT_EPOCHS = 2
Batches = list[tuple[Tensor, Tensor]]


def synthetic(count: int, seed: int) -> Batches:
    """Batches of noise images [16, 3, 64, 64] with a tint that stands for the label."""
    random = torch.Generator().manual_seed(seed)
    tints = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (count,), generator=random)
    images = torch.randn(count, 3, SIZE, SIZE, generator=random) + tints[labels]
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def train(model: nn.Module, data: Batches, rate: float, what: str) -> None:
    """One epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    model.train()
    for images, labels in track(data, what):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def evaluate(model: nn.Module, data: Batches) -> float:
    """The share of right answers, in percent."""
    with torch.no_grad():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in data)
    return 100 * right / sum(len(labels) for _, labels in data)


def pass_calibration_data(sim_model: nn.Module, data: Batches) -> None:
    """What `compute_encodings` calls back: runs the model, and needs no labels."""
    for images, _ in data:
        sim_model(images)


def main(folder: Path, images: int) -> int:
    """Run the example; 0 when the simulator computes after all of it what its checkpoint computes."""
    torch.manual_seed(0)
    data, held_out = synthetic(images, seed=1), synthetic(images // 2, seed=2)
    model = torchvision_models().resnet18(num_classes=CLASSES)
    for _ in range(FLOAT_EPOCHS):
        train(model, data, 0.01, "training")
    print(f"float model                {evaluate(model, held_out):6.2f} %")

    prepared = prepare_model(model)
    sim = QuantizationSimModel(
        prepared,
        dummy_input=data[0][0],
        quant_scheme=QuantScheme.post_training_tf_enhanced,
        default_output_bw=8,
        default_param_bw=8,
    )
    sim.compute_encodings(forward_pass_callback=pass_calibration_data, forward_pass_callback_args=data[:4])
    print(f"simulator, calibrated      {evaluate(sim.model, held_out):6.2f} %")

    train(sim.model, data, 0.002, "quantization-aware training")
    print(f"simulator, fine-tuned      {evaluate(sim.model, held_out):6.2f} %")

    folder.mkdir(parents=True, exist_ok=True)
    written = sim.export(path=folder, filename_prefix="resnet18", dummy_input=data[0][0])
    written += sim.export(path=folder, filename_prefix="resnet18_qdq", dummy_input=data[0][0], format="qdq")
    save_checkpoint(sim, folder / "resnet18.ckpt")
    again = load_checkpoint(folder / "resnet18.ckpt")
    same = torch.equal(again.model(held_out[0][0]), sim.model(held_out[0][0]))
    print(f"checkpoint computes the same: {'yes' if same else 'NO'}")
    print(f"written to {folder}/: {', '.join(path.name for path in written)}, resnet18.ckpt")
    return 0 if same else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder_help = "where to write (default: %(default)s)"
    parser.add_argument("--folder", type=Path, default=Path("build/quantsim_resnet18"), help=folder_help)
    parser.add_argument("--images", type=int, default=640, help="how many to train on (default: %(default)s)")
    try:
        given = parser.parse_args()
        sys.exit(main(given.folder, given.images))
    except QirError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
