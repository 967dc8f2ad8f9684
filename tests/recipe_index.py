"""The table of all recipes, made from their headers: `python tests/recipe_index.py` writes recipes/README.md again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"

WITHOUT_A_FILE = """
## Without a file

**Models of STS on the binary sets** (Tables 3 and 12): `evaluate_sts.py --tasks binary` scores a finished run of STS.
The paper's figures for SimCSE-BERT-base on QQP, QNLI and MRPC: start 80.38, 71.38, 75.02; bi-encoder 80.80, 72.35,
74.53; cross-encoder 80.84, 78.81, 79.42.

**Contrastive tuning on the pairs** (Table 9): `BiEncoderTrainer` with the loss `info_nce` takes the two sentences of
each pair as positives ([docs/trainers.md](../docs/trainers.md)). The paper's figures for SimCSE-RoBERTa-base: STS
73.93, QQP 74.00, QNLI 77.56, MRPC 75.25.
"""

GROUPS = {
    "self_distill": "Self-distillation",
    "mutual_distill": "Mutual-distillation",
    "from_sentences": "From sentences, without pairs",
    "ablations": "Ablations and variants",
    "lora": "LoRA",
    "large": "Large decoders",
    "contrastive": "Contrastive training of a start (step 0)",
}

INTRODUCTION = """# Recipes

YAML files for the rows of the paper's tables, and some of our own (what Tables 9 and 12 want is
[below](#without-a-file)). A file holds what differs from the defaults.
These are the paper's (its Table 16), but cross-encoders of small pools and models take more or larger steps
(docs/method.md says how); the paper's rows train as the paper says, whatever their pool. The project's README lists the
[scripts](../README.md#the-other-commands), and has a file for [pairs of your own](../README.md#your-own-pairs).

The column "launched with" names the configuration in `accelerate_configs/`. The launch line of a row is

```bash
accelerate launch --config_file accelerate_configs/LAUNCHED_WITH.yaml recipes/SCRIPT.py --config recipes/FILE
```

The script is `contrastive.py` for the files in `contrastive/` and `trans_encoder.py` for all others; the exception is
`contrastive/simcse_on_pool.yaml`, which a run takes as its step 0 (`trans_encoder.py --distillation.step0 FILE`).
Read the head of a file first: it says what to download, make or name before. The figures are published ones: Spearman
x 100 for STS and SICK-R, ROC-AUC x 100 for QQP, QNLI and MRPC. None of them was reproduced with this code yet.
"""


@dataclass(frozen=True)
class Header:
    """What the comments at the top of a recipe say.

    Args:
        title: The first line: what the recipe runs.
        launched_with: Name of the accelerate configuration.
        script: File name of the script that takes the recipe.
        figures: Table and figures of the paper, or of the method's authors; empty where there are none.
    """

    title: str
    launched_with: str
    script: str
    figures: str


def read_header(path: Path) -> Header:
    """Read the comments at the top of a recipe.

    Raises:
        ValueError: They hold no launch line.
    """
    top = path.read_text(encoding="utf-8").partition("\n\n")[0]
    text = " ".join(line.removeprefix("#").strip(" \\") for line in top.splitlines())
    launch = re.search(
        r"accelerate launch --config_file accelerate_configs/(\w+)\.yaml recipes/(\w+\.py) .*"
        rf"--(?:config|distillation\.step0) (recipes/{path.relative_to(RECIPES)})( |$)",
        text,
    )
    if launch is None:
        raise ValueError(f"{path} has no launch line of its own in its header")
    figures = re.search(r"The (?:paper's|authors') figures? \((.+?)\): (.*?)\.( [A-Z](?!oBERTa:)|$)", text)
    return Header(
        title=re.sub(r" \([\w-]+ x 100.*\)", "", top.splitlines()[0].removeprefix("# ").removesuffix(".")),
        launched_with=launch[1],
        script=launch[2],
        figures="" if figures is None else f"{figures[1]}: {figures[2]}",
    )


def recipe_index() -> str:
    """The text of recipes/README.md."""
    paths = sorted(RECIPES.rglob("*.yaml"))
    text = INTRODUCTION
    for folder, title in {"": "Quickstart", **GROUPS}.items():
        text += f"\n## {title}\n\n| row | file | published figures | launched with |\n| --- | --- | --- | --- |\n"
        for path in paths:
            name = path.relative_to(RECIPES)
            if (name.parts[0] if len(name.parts) > 1 else "") == folder:
                header = read_header(path)
                text += f"| {header.title} | [{name}]({name}) | {header.figures} | {header.launched_with} |\n"
    return text + WITHOUT_A_FILE


if __name__ == "__main__":
    (RECIPES / "README.md").write_text(recipe_index(), encoding="utf-8")
