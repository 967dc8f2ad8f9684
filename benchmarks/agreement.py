"""Which cycle each measure of agreement would keep, against which one gold scores would.

    python benchmarks/agreement.py runs/a runs/b        # finished runs of selection: agreement, with dev and test sets

No measure sees a gold score; the columns dev and test say what each choice is worth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from te_trainer.distillation.selection import CHOOSING, MEASURES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    for folder in parser.parse_args().runs:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        for name, agreements in results["agreement"].items():
            print(f"\n{folder.name}, {name}\n")
            show_cycles(name, results, agreements)
            show_choices(name, results, agreements)


def show_cycles(name: str, results: dict[str, Any], agreements: list[dict[str, Any]]) -> None:
    print("| cycle | " + " | ".join(MEASURES) + " | bi dev | bi test | cross dev | cross test |")
    print("| ---: " * (5 + len(MEASURES)) + "|")
    start = results["start"][name]["bi-encoder"]
    print(f"| start |{' |' * len(MEASURES)} {100 * start['dev']:.2f} | {100 * start['test']['avg']:.2f} | | |")
    for entry, cycle in zip(agreements, results["cycles"], strict=True):
        cells = [f"{entry[measure]:.4f}" if measure in entry else "" for measure in MEASURES]
        for kind in ("bi-encoder", "cross-encoder"):
            scores = cycle[name].get(kind)
            cells += [f"{100 * scores['dev']:.2f}", f"{100 * scores['test']['avg']:.2f}"] if scores else ["", ""]
        print(f"| {entry['cycle']} | " + " | ".join(cells) + " |")


def show_choices(name: str, results: dict[str, Any], agreements: list[dict[str, Any]]) -> None:
    print("\n| encoder | kept by | cycle | test |\n| --- | --- | ---: | ---: |")
    for kind in CHOOSING:
        scores = {entry["cycle"]: entry[name][kind] for entry in results["cycles"] if kind in entry[name]}
        choices = {
            "dev": max(scores, key=lambda cycle: scores[cycle]["dev"]),
            "last": max(scores),
        }
        for measure in MEASURES:
            measured = [entry for entry in agreements if measure in entry]
            if measured:
                name_of = f"{measure} (te_trainer)" if measure == CHOOSING[kind] else measure
                choices[name_of] = max(measured, key=lambda entry: entry[measure])["cycle"]
        for how, cycle in choices.items():
            print(f"| {kind} | {how} | {cycle} | {100 * scores[cycle]['test']['avg']:.2f} |")


if __name__ == "__main__":
    main()
