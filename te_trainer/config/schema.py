"""The sections of a run's configuration. Nothing here imports torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from te_trainer.config.revision import split_revision

Kind = Literal["bi-encoder", "cross-encoder"]
Task = Literal["sts", "binary"]
Size = Literal["base", "large"]
Pooling = Literal["cls", "mean", "last"]
Students = Literal["both", "bi-encoder"]
Combine = Literal["mean", "weighted", "rank"]
Method = Literal["simcse", "mirror_bert"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass
class ModelConfig:
    """One PLM: the bi-encoder that labels first, and the plain checkpoint from which cross-encoders start.

    Args:
        bi_encoder: Start of the bi-encoder (step 0 of the paper's algorithm, e.g. a SimCSE checkpoint): a Hub id,
            `owner/name` or `owner/name@revision` (a branch, a tag or a commit), a local folder, or `package:folder` for
            a folder inside an installed package.
        cross_encoder: Start of the cross-encoder, the original PLM (e.g. `bert-base-uncased`). Default: `bi_encoder`.
        name: Name of the folder below the output folder. Default: the last part of `bi_encoder`, without a
            revision.
        pooling: Overrides `bi_encoder.pooling` for this PLM.
        weight: Of this PLM's labels where `distillation.combine` is `weighted`; only ratios count. Default: 1.
    """

    bi_encoder: str
    cross_encoder: str | None = None
    name: str | None = None
    pooling: Pooling | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        self.cross_encoder = self.cross_encoder or self.bi_encoder
        model, _ = split_revision(self.bi_encoder)
        self.name = self.name or model.rstrip("/").replace(":", "/").split("/")[-1]


@dataclass
class DataConfig:
    """Where the unlabelled pairs and the gold scores are.

    Args:
        pool: Sources of unlabelled pairs, one or several: a `.txt` file (`s1||s2` a line), `.tsv`, `.csv`, `.jsonl`,
            `.parquet`, a saved Dataset folder, a benchmark name (`stsb`), or a Hub id (`owner/name` or
            `owner/name:config`, with `@revision` behind it or not). Labels in them are ignored; all splits are read.
        columns: Maps `sentence1`, `sentence2` and `score` to the files' names, e.g. `{sentence1: question1}`;
            where a file lacks the mapped column, the plain name is taken.
        max_pairs: Keep at most this many pairs, drawn with `seed`.
        extra: Sources as in `pool` whose pairs are added to it, e.g. SNLI (the paper's Fig. 5).
        extra_pairs: Add at most this many pairs of `extra`, drawn with `seed`.
        dir: Folder with benchmark sets as `NAME.tsv` (header `split score sentence1 sentence2`); without it they come
            from the Hub.
        dev: Pairs with gold scores that choose checkpoints and cycles: a benchmark name, or a file as for `pool` with
            a column `score`.
        test: Pairs with gold scores to report on, named likewise; they choose nothing.
    """

    pool: list[str] | str = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    max_pairs: int | None = None
    extra: list[str] | str = field(default_factory=list)
    extra_pairs: int | None = None
    dir: str | None = None
    dev: str | None = None
    test: list[str] | str = field(default_factory=list)


@dataclass
class DistillationConfig:
    """The alternation of labelling and training (paper section 2).

    Args:
        task: Which of the paper's hyper-parameter sets (Table 16) gives the defaults, and which metric scores: `sts`
            (Spearman) or `binary` (ROC-AUC).
        size: Which column of Table 16; `auto` takes `large` from a hidden size of 1024 on.
        cycles: Number of cycles. Default: 3 for `sts`, 5 for `binary`.
        init: `refresh` starts every training from the original checkpoints (the paper's choice); `sequential` starts
            each encoder from the weights of its teacher.
        students: `both` alternates cross-encoders and bi-encoders; `bi-encoder` trains each bi-encoder on the labels of
            the bi-encoder before it, the paper's baseline (standard self-distillation, Table 14).
        combine: How the labels of several PLMs become one: `mean` (the paper's), `weighted` by `models.weight`, or
            `rank`, the mean of ranks mapped back to the quantiles of the mean, for teachers of different scale.
        selection: `dev` keeps the checkpoint and the cycle that score best on `data.dev`; `last` keeps the last ones;
            `agreement` keeps the cycle whose encoder agrees best, on the pool, with the labels that the first cycle
            learnt from; no gold score is needed.
        precision: Arithmetic of training and labelling: `auto` takes bfloat16 or float16 where the hardware is fast
            at it, float32 elsewhere. Weights, scores and reported results are float32 always.
        batch_tokens: Tokens in a batch of labelling, padding included. Default: 4096 on a CPU, 32768 elsewhere.
        keep_cycles: Keep the encoders of all cycles instead of the best ones only.
        isolate_stages: Run each stage in a process of its own, which begins with no memory of the stages before.
        step0: YAML file of `recipes/contrastive.py` that first makes a bi-encoder of each plain PLM (the paper's step
            0). Only its sources of sentences (without any, the run's own pool) and its section `contrastive` count.
    """

    task: Task = "sts"
    size: Literal["auto", "base", "large"] = "auto"
    cycles: int | None = None
    init: Literal["refresh", "sequential"] = "refresh"
    students: Students = "both"
    combine: Combine = "mean"
    selection: Literal["dev", "last", "agreement"] = "dev"
    precision: Precision = "auto"
    batch_tokens: int | None = None
    keep_cycles: bool = False
    isolate_stages: bool = False
    step0: str | None = None


@dataclass
class LoraConfig:
    """Low-rank adapters instead of full training (peft); without `rank`, all weights are trained.

    Args:
        rank: Of the adapters' matrices; setting it turns LoRA on, for both encoders. A cross-encoder's head is trained
            in full.
        alpha: Scale of the adapters. Default: twice the rank.
        dropout: In front of the adapters.
        target_modules: Names of the linear layers that get adapters; `all-linear` takes every one but the head.
        keep_adapter: Keep the adapter beside the merged weights, in the folder `adapter`.
    """

    rank: int | None = None
    alpha: int | None = None
    dropout: float = 0.05
    target_modules: list[str] | str = "all-linear"
    keep_adapter: bool = False


@dataclass
class HubConfig:
    """Publishing a finished run on the Hugging Face Hub; without `repo_id`, nothing is published.

    Args:
        repo_id: `OWNER/NAME`, from which the repositories have their names: `OWNER/NAME-bi-encoder` and
            `OWNER/NAME-cross-encoder`. With several PLMs, each has its own, with its name behind `NAME`.
        one_repository: Put both encoders of a PLM into one repository, `OWNER/NAME`, in folders of their own.
        private: Let only the owner see them; a public repository of that name is then refused.
        branch_per_cycle: Publish the encoders of each cycle too, on branches `cycle-1`, `cycle-2`, …; wants
            `distillation.keep_cycles`.
        license: Named in the model cards, as the Hub writes it (`apache-2.0`, `mit`, `cc-by-4.0`, …).
    """

    repo_id: str | None = None
    one_repository: bool = False
    private: bool = False
    branch_per_cycle: bool = False
    license: str | None = None


@dataclass
class ContrastiveDataConfig:
    """Where the sentences and the gold scores are.

    Args:
        sentences: Sources of sentences, one or several: a `.txt` file (a sentence a line, or several with `||` between
            them), or any source of pairs (`.tsv`, `.csv`, `.jsonl`, `.parquet`, a saved Dataset folder, a benchmark
            name, a Hub id), of which the distinct sentences are taken.
        column: Read this one column instead of `sentence1` and `sentence2`, e.g. `text` of a Hub dataset.
        split: Read this split only, of sources that have splits. Default: all of them.
        columns: Maps `sentence1`, `sentence2` and `score` to the files' names, e.g. `{sentence1: question1}`.
        max_sentences: Keep at most this many sentences, drawn with `seed`.
        dir: Folder with benchmark sets as `NAME.tsv` (header `split score sentence1 sentence2`); without it they come
            from the Hub.
        dev: Pairs with gold scores that choose the checkpoint: a benchmark name, or a file as for `sentences` with a
            column `score`. Without it the last checkpoint is kept.
        test: Pairs with gold scores to report on, named likewise; they choose nothing.
    """

    sentences: list[str] | str = field(default_factory=list)
    column: str | None = None
    split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    max_sentences: int | None = None
    dir: str | None = None
    dev: str | None = None
    test: list[str] | str = field(default_factory=list)


@dataclass
class ContrastiveConfig:
    """A run of contrastive training, from a plain PLM to a bi-encoder.

    `contrastive` holds only the keys that the user gave; `contrastive_arguments` fills the rest.
    """

    model: str
    data: ContrastiveDataConfig
    contrastive: dict[str, Any]
    report_to: list[str]
    output_dir: str
    seed: int
    ddp_timeout: int


@dataclass
class ScoreDataConfig:
    """What is scored: a file of pairs, or a file of sentences whose nearest ones are looked for.

    Args:
        pairs: Pairs to score: a `.txt` file (`s1||s2` a line), `.tsv`, `.csv`, `.jsonl`, `.parquet`, a saved Dataset
            folder, a benchmark name (`stsb`), or a Hub id (`owner/name` or `owner/name:config`). Every row is scored.
        sentences: Sentences to search among: a `.txt` file (a sentence a line, or several with `||` between them), or
            any source as for `pairs`, of which the distinct sentences are taken.
        queries: Sentences, named likewise, whose nearest among `sentences` are looked for. Default: each sentence's
            nearest other ones.
        column: Of `sentences` and `queries`, read this one column instead of `sentence1` and `sentence2`.
        split: Read this split only, of sources that have splits. Default: all of them.
        columns: Maps `sentence1` and `sentence2` to the files' names, e.g. `{sentence1: question1}`.
        dir: Folder with benchmark sets as `NAME.tsv`; without it they come from the Hub.
    """

    pairs: str | None = None
    sentences: str | None = None
    queries: str | None = None
    column: str | None = None
    split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    dir: str | None = None


@dataclass
class ScoreConfig:
    """What to score, with which model, and where to write it."""

    model: str
    data: ScoreDataConfig
    output: str
    overwrite: bool
    top_k: int
    rerank: str | None
    precision: Precision
    batch_tokens: int | None
    pooling: Pooling | None
    max_length: int | None
    prompt: str | None
    ddp_timeout: int


@dataclass
class EvaluationDataConfig:
    """Where the gold scores are.

    Args:
        dir: Folder with benchmark sets as `NAME.tsv` (header `split score sentence1 sentence2`); without it they come
            from the Hub.
        columns: Maps `sentence1`, `sentence2` and `score` to the names that a file of yours uses, e.g. `{sentence1:
            question1}`.
        split: Which rows of a set that has splits: `test`, or `dev` to choose between models.
    """

    dir: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: Literal["dev", "test"] = "test"


@dataclass
class EvaluationConfig:
    """An evaluation: models, and pairs with gold scores. `pooling` and `max_length` None are the checkpoints' own."""

    models: list[str]
    tasks: list[str]
    data: EvaluationDataConfig
    pooling: Pooling | None
    max_length: int | None
    compare: Literal["paper"] | None
    output_dir: str
    seed: int
    ddp_timeout: int


@dataclass
class RunConfig:
    """A whole run.

    `bi_encoder` and `cross_encoder` hold only the keys that the user gave; the trainers' defaults fill the rest.
    `step0` is what the file `distillation.step0` says. `hub` has no part in a run's numbers, and may change.
    """

    models: list[ModelConfig]
    data: DataConfig
    distillation: DistillationConfig
    bi_encoder: dict[str, Any]
    cross_encoder: dict[str, Any]
    lora: LoraConfig
    hub: HubConfig
    report_to: list[str]
    output_dir: str
    seed: int
    ddp_timeout: int
    step0: ContrastiveConfig | None = None
