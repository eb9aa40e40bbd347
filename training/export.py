"""Writes the packaged model: `python -m training.export --run training/runs/emoji`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from training.network import DEVIATION, MAX_WORDS, MEAN, Network
from training.pictures import SIZE, STOPWORDS

WEIGHTS = Path(__file__).parents[1] / "src" / "comfyserve" / "engine" / "weights"
NAME = "comfyserve-emoji-v1"
SILENT = STOPWORDS | {"i", "me", "my", "please", "draw", "drawing", "picture", "emoji", "this"}
SYNONYMS = {
    **dict.fromkeys(("kitty", "kitten"), "cat"),
    **dict.fromkeys(("puppy", "doggy"), "dog"),
    **dict.fromkeys(("violet", "lilac", "magenta"), "purple"),
    **dict.fromkeys(("scarlet", "crimson", "ruby"), "red"),
    **dict.fromkeys(("golden", "gold"), "yellow"),
    **dict.fromkeys(("azure", "navy", "turquoise"), "blue"),
    **dict.fromkeys(("plane", "jet"), "airplane"),
    **dict.fromkeys(("lady", "mum", "mom"), "woman"),
    **dict.fromkeys(("guy", "dad"), "man"),
    "bunny": "rabbit",
    "grey": "gray",
    "sea": "ocean",
    "auto": "automobile",
    "bike": "bicycle",
    "smile": "smiling",
    "snowy": "snow",
    "sunny": "sun",
    "rainy": "rain",
}


def main() -> None:
    """Export the averaged weights and check that onnxruntime computes what torch does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("training/runs/emoji"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    words = json.loads((options.run / "words.json").read_text(encoding="utf-8"))
    network = Network(len(words)).eval()
    saved = torch.load(options.run / "checkpoint.pt", weights_only=True)
    network.load_state_dict(saved["average"])
    options.out.mkdir(parents=True, exist_ok=True)
    model_file = options.out / f"{NAME}.onnx"
    onnx.save(_halved(_graph(network)), model_file)
    (options.out / f"{NAME}.json").write_text(
        json.dumps(_document(words), ensure_ascii=False, indent=0, sort_keys=True) + "\n",
        encoding="utf-8",
    )
    print(f"step {saved['step']}, {saved['seconds'] / 60:.1f} minutes of training")
    print(f"{model_file.stat().st_size:,} bytes, off by {_difference(network, model_file):.4f}")


def _graph(network: Network) -> onnx.ModelProto:
    inputs = _example(2)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.onnx.export(
        network,
        inputs,
        input_names=["samples", "t", "words"],
        output_names=["clean"],
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where each node came from; larger than some weights
        node.doc_string = ""
    del model.graph.value_info[:]
    return model


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its large weights stored as fp16 and widened when it is loaded."""
    stored, casts = [], []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 64:
            stored.append(weight)
            continue
        half = numpy_helper.to_array(weight).astype(np.float16)
        stored.append(numpy_helper.from_array(half, f"{weight.name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(stored)
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _document(words: list[str]) -> dict[str, object]:
    known = set(words)
    synonyms = {
        word: meant for word, meant in SYNONYMS.items() if meant in known and word not in known
    }
    return {
        "words": words,
        "synonyms": synonyms,
        "silent": sorted(SILENT),
        "slots": MAX_WORDS,
        "size": SIZE,
        "mean": MEAN,
        "deviation": DEVIATION,
    }


def _difference(network: Network, model_file: Path) -> float:
    """The largest difference between torch and onnxruntime on a batch of another size."""
    samples, t, words = _example(3)
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    feed = {"samples": samples.numpy(), "t": t.numpy(), "words": words.numpy()}
    with torch.no_grad():
        expected = network(samples, t, words).numpy()
    difference = float(np.abs(np.asarray(session.run(None, feed)[0]) - expected).max())
    if difference > 0.1:
        raise SystemExit(f"onnxruntime and torch differ by {difference}")
    return difference


def _example(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    words = torch.zeros(batch, MAX_WORDS, dtype=torch.int64)
    words[1:, 0] = 5
    return torch.randn(batch, 3, SIZE, SIZE), torch.linspace(0.2, 0.9, batch), words


if __name__ == "__main__":
    main()
