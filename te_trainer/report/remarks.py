"""The sentences that belong to a run's results: what chose, what failed, what is kept, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from te_trainer.config.defaults import LEAST_STEPS
from te_trainer.config.schema import DistillationConfig
from te_trainer.config.types import KINDS, section_of
from te_trainer.distillation.health import MIN_PAIRS, why_no_teacher
from te_trainer.distillation.plan import LEAST_TO_TRUST, TRUSTED_SOURCES
from te_trainer.distillation.selection import TRUSTED_AGREEMENT
from te_trainer.report.run_results import encoders_by_cycle, model_names, overlap_entries
from te_trainer.report.table_formats import percent
from te_trainer.report.verdicts import verdict
from te_trainer.runs.truncation import describe_run_truncation

ENSEMBLE_DESCRIPTIONS = {
    "mean": "The ensemble's predictions are the mean of all models'.",
    "weighted": "The ensemble's predictions are the mean of all models', by their weights.",
    "rank": "The ensemble ranks by the mean of all models' ranks.",
}
AGREEMENT_DESCRIPTION = (
    "Spearman × 100 of scores of the pool. cross-first and bi-first compare an encoder with the labels that the first "
    "cycle learnt from; they chose the cycles."
)
HEALTH_DESCRIPTION = (
    "Health is measured on some pairs of the pool, without gold; where distillation.held_out is above 0, no training "
    "sees them. An encoder's agreement is Spearman's correlation × 100 of its scores with the labels that it learnt, "
    "“with start” that with the scores of its PLM's start. Std is the standard deviation of the scores, distinct how "
    "many different ones there are, spread the former beside that of these labels. Orders is Spearman's correlation "
    "× 100 of the scores of (s1, s2) and (s2, s1). Edits says how often a sentence is found less similar to itself the "
    "more of it was edited, and least to another one; scores that say nothing reach 50. None of this says how good an "
    "encoder is; low values say that it has not learnt."
)


def remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of the results should not overlook."""
    starts = {name: why_no_teacher(encoders["bi-encoder"]) for name, encoders in results["health"]["start"].items()}
    lines = [f"{name}: {reason}." for name, reason in starts.items() if reason]
    lines += [*_failures(results), *_ended_by_others(results), *_grown(results)]
    for name in model_names(results):
        start = results["start"][name]["bi-encoder"].get("dev")
        gains = list(_gains(results, name))
        if start is None:
            lines += [_verdict(results, name), *gains]
            continue
        for kind, scores in results["final"][name].items():
            if scores["cycle"] == 0:
                why = f"no {kind} has learnt" if _has_stopped(results) else "no cycle's scores higher on dev"
                lines.append(f"{name}: the {kind} that was kept is the start, {_as_it_is(results)}; {why}.")
            elif scores["dev"] < start:
                lines.append(
                    f"{name}: the {kind} that was kept scores lower on dev ({percent(scores['dev'])}) than the start "
                    f"({percent(start)}); distillation did not improve it."
                )
        lines += gains
    shared = [
        f"{entry['in_dev']:,} of the {entry['pairs']:,} pairs of {entry['name']}"
        for entry in results.get("overlap", {"test": {}})["test"].values()
        if entry.get("in_dev")
    ]
    if shared:
        lines.append(f"The dev set holds test pairs, whose scores are not those of unseen pairs: {', '.join(shared)}.")
    return lines + describe_run_truncation(results["truncation"])


def _failures(results: dict[str, Any]) -> Iterator[str]:
    """A line for the students of a PLM and a kind that have not learnt: why, what became of them, and what to do."""
    failed = results["not_learnt"]
    for name, kind in dict.fromkeys((entry["name"], entry["kind"]) for entry in failed):
        mine = [entry for entry in failed if (entry["name"], entry["kind"]) == (name, kind)]
        kept = results["final"].get(name, {}).get(kind, {}).get("cycle")
        outcomes = []
        if any(entry["stopped"] for entry in mine):
            outcomes.append("it taught none and the cycles ended there")
        elif any(entry["taught"] for entry in mine):
            outcomes.append("it taught all the same")
        if kept in [entry["cycle"] for entry in mine]:
            outcomes.append(f"that of cycle {kept} was kept")
        reasons = " ".join(f"Cycle {entry['cycle']}: {entry['reason']}." for entry in mine)
        outcome = f" {' and '.join(outcomes).capitalize()}." if outcomes else ""
        teachers = {entry["cycle"] for entry in failed if entry["kind"] == "cross-encoder"}
        if kind == "bi-encoder" and all(entry["cycle"] in teachers for entry in mine):
            advice = "A cross-encoder that it learnt from has not learnt either."
        else:
            advice = _advice(mine[-1], "mining" in results or mine[-1]["added_pairs"] > 0)
        yield f"{name}: the {kind} has not learnt its labels. {reasons}{outcome} {advice}"


def _ended_by_others(results: dict[str, Any]) -> Iterator[str]:
    """A line for each PLM whose cycles ended although its own students have learnt."""
    stopped = [entry for entry in results["not_learnt"] if entry["stopped"]]
    failed = list(dict.fromkeys(entry["name"] for entry in stopped))
    for name in model_names(results) if stopped else ():
        if name not in failed:
            yield (
                f"{name}: the cycles ended because the {stopped[0]['kind']} of {' and '.join(failed)} has not learnt "
                f"in cycle {stopped[0]['cycle']}; each model learns from the labels of all."
            )


def _grown(results: dict[str, Any]) -> Iterator[str]:
    """A line for the students of a PLM that have learnt random pairs beside the pool's."""
    failed = {(entry["cycle"], entry["name"]) for entry in results["not_learnt"] if entry["added_pairs"]}
    for name in model_names(results):
        for cycle, encoders in encoders_by_cycle(results["health"], name):
            added = encoders.get("cross-encoder", {}).get("added_pairs", 0)
            if added and (cycle, name) not in failed:
                yield (
                    f"{name}: so small a pool teaches a cross-encoder too little; the one of cycle {cycle} has also "
                    f"learnt {added:,} random pairs of the pool's sentences."
                )


def _advice(failure: dict[str, Any], mined: bool) -> str:
    """What may help, by docs/selection.md and docs/results.md; `mined` says whether the pool holds mined pairs."""
    section = section_of(failure["kind"])
    steps, larger = f"It was trained for {failure['steps']:,} steps", f"larger steps ({section}.learning_rate)"
    more = "more pairs" if mined else "more pairs (mining.pairs adds some of the pool's own sentences)"
    if failure["steps"] < LEAST_STEPS:
        return f"{steps} only: {more}, more steps ({section}.{failure['length']}) or {larger} may help."
    return f"{steps}: {more}, {larger} or another PLM may help."


def _verdict(results: dict[str, Any], name: str) -> str:
    """What a run without a dev set knows of what it kept for a PLM, and how to know more."""
    health = dict(encoders_by_cycle(results["health"], name))
    kept = [
        _kept(kind, entry, {} if entry["cycle"] == 0 else health[entry["cycle"]][kind])
        for kind, entry in sorted(results["final"][name].items())
    ]
    hint = ""
    if results.get("trusts_students") and any(entry["cycle"] for entry in results["final"][name].values()):
        hint = (
            " It keeps the last that has learnt, because distillation.selection is health, or because the start has "
            f"seen no label and the pool is large enough. {_in_our_runs(results)} (docs/selection.md)."
        )
    elif results["final"][name].get("bi-encoder", {}).get("cycle") == 0 and not _has_stopped(results):
        hint = (
            " Where its start has seen no label and the pool has thousands of pairs, students may be better: "
            "distillation.selection health keeps them."
        )
    if all(entry["cycle"] == 0 for entry in results["final"][name].values()):
        return f"{name}: the cycles changed nothing: this run keeps {' and '.join(kept)}, {_as_it_is(results)}.{hint}"
    return f"{name}: this run keeps {', and '.join(kept)}. {_gain(results, name)}{hint}"


def _kept(kind: str, entry: dict[str, Any], known: dict[str, Any]) -> str:
    """An encoder that a run without a dev set keeps, and what its health, `known`, says of it beside the start."""
    if entry["cycle"] == 0:
        return f"the start as its {kind}"
    named = f"the {kind} of cycle {entry['cycle']}"
    if "start" not in known:
        return f"{named}, of which nothing says how good it is"
    enough, bound = "enough" if entry["as_good_as_start"] else "too little", percent(TRUSTED_AGREEMENT)
    means = f"{enough} to call it as good as the start ({bound})"
    if known["pairs"] < MIN_PAIRS:
        means = f"too few pairs to call it as good as the start ({MIN_PAIRS} pairs, {bound})"
    elif not entry["as_good_as_start"] and known["start"] >= TRUSTED_AGREEMENT:
        means = "which says little, because it has learnt these pairs (distillation.held_out keeps some back)"
    agreement = f"{known['pairs']:,} pairs of the pool agree with the start's to {percent(known['start'])}"
    return f"{named}, whose scores of {agreement}, {means}"


def _in_our_runs(results: dict[str, Any]) -> str:
    """What our runs say of students of a start that has seen no label, from a pool such as this run's."""
    kinds = {kind for entry in results["health"]["cycles"] for name in model_names(results) for kind in entry[name]}
    mined = results.get("mining", {}).get("pairs", {}).keys()
    if mined in (set(), TRUSTED_SOURCES) and results["pairs"] >= LEAST_TO_TRUST and kinds == set(KINDS):
        return "Students of such a start were better than it in our runs"
    return (
        f"Students of such a start were better than it in our runs from {LEAST_TO_TRUST:,} pairs on, with both kinds "
        "of students and no pairs of nearest neighbours; from 1,000 the cross-encoder was worse, in one run"
    )


def _gains(results: dict[str, Any], name: str) -> Iterator[str]:
    """A line for each kind of encoder that was kept: whether so many pairs tell it from the start."""
    for kind, by_role in sorted(results.get("gains", {}).get(name, {}).items()):
        tests = [task for task in results["final"][name][kind].get("test", {}) if task != "avg"]
        where = {"dev": "dev", "test": tests[0] if len(tests) == 1 else f"the average of {len(tests)} test sets"}
        said = [
            verdict(f"the {kind} that was kept", "the start", where[role], "points", gain, gain["pairs"])
            for role, gain in by_role.items()
        ]
        if said:
            yield f"{name}: {' '.join(sentence[0].upper() + sentence[1:] for sentence in said)}"


def _has_stopped(results: dict[str, Any]) -> bool:
    """Whether the cycles ended because a student had not learnt."""
    return any(entry["stopped"] for entry in results["not_learnt"])


def _as_it_is(results: dict[str, Any]) -> str:
    """What a start that is kept is."""
    return "as step 0 made it" if "step0" in results["seconds"] else "as it came"


def _gain(results: dict[str, Any], name: str) -> str:
    """What test sets say of what was kept beside the start, or how to know."""
    start = results["start"][name]["bi-encoder"].get("test")
    if not start:
        return (
            "Whether that helps on your pairs, nobody knows without gold scores: score some of them yourself and "
            "compare (te-trainer annotate)."
        )
    kept = [
        f"the {kind} that was kept {percent(entry['test']['avg'])}"
        for kind, entry in sorted(results["final"][name].items())
        if entry["cycle"]
    ]
    return (
        f"On the test sets, which chose nothing, the start scores {percent(start['avg'])}, {', '.join(kept)}. If your "
        "pairs are others, score some of them yourself and compare (te-trainer annotate)."
    )


def selection_note(results: dict[str, Any], distillation: DistillationConfig) -> str:
    """Which gold scores were used for what; a run may call itself unsupervised only where none of them chose."""
    reported = any("dev" in results["start"][name]["bi-encoder"] for name in model_names(results))
    if distillation.selection == "dev" or (distillation.selection == "auto" and reported):
        return (
            "Gold scores of the dev set chose checkpoints and cycles. So a gain on dev is likely higher than one on "
            "other pairs."
        )
    final = [results["final"][name] for name in model_names(results)]
    keeps_start = all(kinds["bi-encoder"]["cycle"] == 0 for kinds in final)
    has_cross = any("cross-encoder" in kinds for kinds in final)
    by_health = "the last encoders that have learnt are kept"
    if keeps_start:
        by_health = (
            "the bi-encoder of the start is kept" + ", and the cross-encoder that agrees best with it" * has_cross
        )
    kept = {
        "last": "the last cycle is kept",
        "agreement": "the cycle is kept whose encoders agree best with the first labels of the pool",
    }.get(distillation.selection, by_health)
    return (
        f"No gold score chose anything in this run, so the distillation was unsupervised: {kept}. "
        + "Gold scores of the dev set are reported only. " * reported
        + "How the starting checkpoints were trained is another matter."
    )


def overlap_lines(results: dict[str, Any]) -> list[str]:
    """How many pairs of each set with gold scores are in the pool."""
    return [
        f"{role} set {entry['name']}: {entry['in_pool']:,} of its {entry['pairs']:,} pairs "
        f"{'is' if entry['in_pool'] == 1 else 'are'} in the pool, in either order"
        + (", without their gold scores" if entry["in_pool"] else "")
        for role, entry in overlap_entries(results)
    ]
