"""The sections of every command's configuration: each key's name, type, default, limits and help stand here once.

Nothing here imports torch, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt

from te_trainer.config.defaults import CONTRASTIVE_ARGUMENTS, DDP_TIMEOUT, TRAINER_DEFAULTS, paper_arguments
from te_trainer.config.names import is_folder, split_revision
from te_trainer.config.types import (
    KINDS,
    CandidateSource,
    Combine,
    GoldColumns,
    LocalPath,
    Logger,
    Method,
    Pooling,
    PositiveFloat,
    PrecisionChoice,
    Rate,
    SamplingStrategy,
    Seconds,
    Seed,
    Source,
    Students,
    Task,
)


def _entry(entry: Any) -> Any:
    if not isinstance(entry, str | dict):
        raise ValueError("input should be a name or a mapping")
    return {"bi_encoder": entry} if isinstance(entry, str) else entry


# What keys mean that stand in several sections, where the section's docstring does not say it.
COMMON_HELP = {
    "attn_implementation": "Attention, as transformers names it. It is sdpa, eager, flex_attention, flash_attention_2, "
    "..., or a kernel of the Hub (OWNER/NAME), and is used as named: nothing is packed. Left out, the fastest that is "
    "known. Flash attention is not used where the arithmetic is float32, as it is for final scores.",
    "batch_tokens": "Tokens in a batch of labelling, padding included. Default: 4096 on a CPU, 32768 elsewhere.",
    "column": "One column to read instead of `sentence1` and `sentence2`. That may be `text` of a Hub dataset.",
    "columns": "Maps columns to the files' names: `{sentence1: question1}`. Likewise `sentence2` and "
    "`score`. Where a file lacks the mapped column, its column of the plain name is read.",
    "ddp_timeout": "Seconds that processes wait for one another. One of them reads and tokenises for all.",
    "dir": "Folder with benchmark sets as `NAME.tsv`. Their header is `split score sentence1 sentence2`. Without a "
    "folder they come from the Hub.",
    "output_dir": "Where everything is written.",
    "pooling": "How a sentence's token vectors become one. Default: the checkpoint's, else last for decoders and cls "
    "for encoders.",
    "prompt": "Text before every sentence. Default: the checkpoint's.",
    "seed": "Seed of everything random.",
    "split": "Read this split only, of sources that have splits. Default: all of them.",
    "test": "Pairs with gold scores to report on. They are named as `dev` is, and choose nothing.",
}
NOT_A_KEY = {"key": False}  # of a field that follows from others


@dataclass
class ModelConfig:
    """One PLM: the bi-encoder that labels first, and the plain checkpoint from which cross-encoders start.

    Args:
        bi_encoder: Start of the bi-encoder (step 0 of the paper's algorithm, e.g. a SimCSE checkpoint): a Hub id,
            `owner/name` or `owner/name@revision` (a branch, a tag or a commit), a local folder, or `package:folder` for
            a folder inside an installed package.
        cross_encoder: Start of the cross-encoder, the original PLM (e.g. `bert-base-uncased`). Default: `bi_encoder`.
        name: Name of the folder below the output folder. Default: the last part of `bi_encoder`, without a revision; of
            a run's encoder the folder above it.
        pooling: Overrides `bi_encoder.pooling` for this PLM.
        weight: Weight of this PLM's labels where `distillation.combine` is `weighted`; only ratios count. Default: 1.
    """

    bi_encoder: Source
    cross_encoder: Source = ""
    name: str = ""
    pooling: Pooling | None = None
    weight: PositiveFloat | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        self.cross_encoder = self.cross_encoder or self.bi_encoder
        model, _ = split_revision(self.bi_encoder)
        *parents, last = model.rstrip("/").replace(":", "/").split("/")
        # an encoder of a run lies in a folder that its PLM names
        of_a_run = last in KINDS and parents and parents[-1] not in {"", ".", ".."} and is_folder(model)
        self.name = self.name or (parents[-1] if of_a_run else last)


@dataclass
class DataConfig:
    """Where the unlabelled pairs or sentences, and the gold scores are.

    Args:
        pool: Sources of unlabelled pairs, one or several. Each is a `.txt` file (`s1||s2` a line), `.tsv`, `.csv`,
            `.jsonl`, `.parquet`, a saved Dataset folder, a benchmark name (`stsb`), a Hub id (`owner/name` or
            `owner/name:config`, either with `@revision`), or an address (`https://`, `s3://`, `hf://`) of `.parquet` or
            `.jsonl` files. Labels in them are ignored; all splits are read.
        max_pairs: Keep at most this many pairs, drawn with `seed`.
        sentences: Sources of sentences that pairs are mined from. They stand beside `pool` or instead of it: `.txt`
            files (a sentence a line, or several with `||` between them), or any source as for `pool`, of which the
            distinct sentences are taken.
        document: Column that names each row's document. Sentences of `sentences` that follow one another in a document
            are candidates, too; rows of other documents may stand between them.
        extra: Sources whose pairs are added to the pool. They are named as in `pool`; SNLI is one (the
            paper's Fig. 5).
        extra_pairs: Add at most this many pairs of `extra`, drawn likewise.
        dev: Pairs with gold scores that choose checkpoints and cycles. It is a benchmark name, or a file as for `pool`
            with a column `score`.
    """

    pool: list[Source] = field(default_factory=list)
    columns: GoldColumns = field(default_factory=dict)
    max_pairs: PositiveInt | None = None
    sentences: list[Source] = field(default_factory=list)
    column: str | None = None
    document: str | None = None
    extra: list[Source] = field(default_factory=list)
    extra_pairs: PositiveInt | None = None
    dir: Source | None = None
    dev: Source | None = None
    test: list[Source] = field(default_factory=list)


@dataclass
class MiningConfig:
    """Pairs out of `data.sentences`, or with `pairs` alone of the pool's own.

    Args:
        pairs: Pairs to mine. They come beside those of `data.pool`. Default: two for each sentence, at most 50,000.
        sources: Sources of candidates. These are bm25 (rare words in common), document (neighbours in the text, with
            `data.document`), random, and neighbours (nearest by the start's vectors). Default: bm25, document, random.
        candidates: Candidates of each source for a sentence.
        per_sentence: Mined pairs that a sentence may be in.
    """

    pairs: PositiveInt | None = None
    sources: list[CandidateSource] = field(default_factory=lambda: ["bm25", "document", "random"])
    candidates: PositiveInt = 5
    per_sentence: PositiveInt = 5


@dataclass
class DistillationConfig:
    """The alternation of labelling and training (paper section 2).

    Args:
        task: What the PLMs learn: `sts` (Spearman) or `binary` (ROC-AUC). It chooses the paper's hyper-parameters
            (Table 16), too.
        size: Column of Table 16: `base`, `large` or `auto`. With `auto` it is `large` from a hidden size of 1024 on.
        cycles: Number of cycles. Default: 3 (`sts`) or 5 (`binary`); with `health`, or `auto` and no `data.dev`, 2, or
            1 if all pairs are mined.
        init: Where trainings start: `refresh` or `sequential`. With `refresh` (the paper's) it is the original
            checkpoint, with `sequential` the teacher's weights; `models.cross_encoder` is not used then.
        students: `both` alternates cross-encoders and bi-encoders; `bi-encoder` trains bi-encoders alone. Each learns
            from the labels of the one before it then (standard self-distillation, the paper's baseline, Table 14).
        combine: How labels of several PLMs become one: `mean`, `weighted` or `rank`. The paper takes the `mean`;
            weights are `models.weight`. With `rank`, for teachers of different scale, it is the mean of ranks at the
            quantiles of the mean.
        cross_encoder_labels: What cross-encoders learn: `scores` or `quantiles`. With `scores` (the paper's) it is the
            bi-encoder's scores, with `quantiles` their ranks, evenly from 0 to 1.
        bi_encoder_labels: What bi-encoders learn: `cross-encoder` or `averaged`. With `cross-encoder` (the paper's) it
            is the cross-encoders' scores, with `averaged` the mean of these and of the start's.
        selection: Which cycle is kept: `auto`, `dev`, `health`, `last` or `agreement`. With `dev` (the paper's) it is
            the best one on `data.dev`, with `auto` that or the start, whichever is better. Without `data.dev` `auto` is
            the start, unless step 0 made it and there are 4,000 pairs; then it is `health`, the last cycle whose
            students have learnt. `agreement` is the cycle that agrees best with the first labels.
        held_out: Part of the pool that no training sees. Health is measured on it (0.03 with `auto` and `health`).
        precision: float32, bfloat16, float16 or auto. With auto it is what the hardware is fast at. Weights, scores and
            reported results are float32 always.
        keep_cycles: Keep the encoders of all cycles. Otherwise only the best ones stay.
        isolate_stages: Run each stage in a process of its own. Its memory holds nothing of earlier stages then.
        step0: YAML file of `recipes/contrastive.py` that makes a bi-encoder of each plain PLM first (step 0).
            Only its sources of sentences (without any, those of the run) and its section `contrastive` count.
    """

    task: Task = "sts"
    size: Literal["auto", "base", "large"] = "auto"
    cycles: PositiveInt | None = None
    init: Literal["refresh", "sequential"] = "refresh"
    students: Students = "both"
    combine: Combine = "mean"
    cross_encoder_labels: Literal["scores", "quantiles"] = "scores"
    bi_encoder_labels: Literal["cross-encoder", "averaged"] = "cross-encoder"
    selection: Literal["auto", "dev", "health", "last", "agreement"] = "auto"
    held_out: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    precision: PrecisionChoice = "auto"
    batch_tokens: PositiveInt | None = None
    keep_cycles: bool = False
    isolate_stages: bool = False
    step0: LocalPath | None = None


@dataclass
class TrainingConfig:
    """A section of keys of its own and of any key of `transformers.TrainingArguments`, which `training` holds."""

    training: dict[str, Any] = field(default_factory=dict, metadata=NOT_A_KEY)

    defaults: ClassVar[dict[str, Any]]  # of those keys, where they differ from transformers'
    origin: ClassVar[str] = "the paper's, for task sts and size base"
    managed: ClassVar[dict[str, str]] = {}  # why a key cannot be set, where `training_keys.MANAGED` says otherwise


@dataclass
class StudentConfig(TrainingConfig):
    """What the trainings of both kinds of encoders have in common.

    Args:
        train_sampling_strategy: How pairs become batches: random, group_by_length or auto. With auto it is
            random (the paper's), but group_by_length on a CPU for models that compute padding: all but BERT and its
            relatives, and those with a max_length above 128.
        official_adamw: Train with AdamW as the official code has it (transformers 4.9). Its epsilon of 1e-6 is added
            before the bias correction, torch's 1e-8 after it. The recipes of the paper's rows set it.
    """

    attn_implementation: str | None = None
    train_sampling_strategy: SamplingStrategy = "auto"
    official_adamw: bool = False


@dataclass
class BiEncoderConfig(StudentConfig):
    """Training of the bi-encoders.

    Args:
        loss: mse (Eq. 3), bce (Table 8) or cosent. The paper takes mse, bce is its ablation; cosent learns the order of
            labels alone.
        max_length: Tokens after which a sentence is cut.
    """

    pooling: Pooling | None = None
    prompt: str | None = None
    loss: Literal["mse", "bce", "cosent"] = "mse"
    max_length: PositiveInt = 32

    defaults = TRAINER_DEFAULTS | paper_arguments("bi-encoder", "sts")


@dataclass
class CrossEncoderConfig(StudentConfig):
    """Training of the cross-encoders.

    Args:
        max_length: Tokens after which a pair is cut.
        loss: bce (Eq. 2) or mse (Table 8). The paper takes bce, mse is its ablation.
        both_orders: Train on (s1, s2) and (s2, s1); off for asymmetric tasks such as QNLI.
    """

    max_length: PositiveInt = 64
    loss: Literal["bce", "mse"] = "bce"
    both_orders: bool = True

    defaults = TRAINER_DEFAULTS | paper_arguments("cross-encoder", "sts")
    origin = "the paper's, at its sizes; small pools and models take more or larger steps"


@dataclass
class LoraConfig:
    """Low-rank adapters instead of full training (peft), if `rank` is given.

    Args:
        rank: Rank of the adapters; turns LoRA on for both kinds of encoders. A cross-encoder's head is trained in full.
        alpha: Scale of the adapters. Default: twice the rank.
        dropout: Dropout rate before the adapters.
        target_modules: Names of the linear layers that get adapters; `all-linear` takes every one but the head.
        keep_adapter: Keep the adapter, too. It lies in the folder `adapter`, beside the merged weights.
    """

    rank: PositiveInt | None = None
    alpha: PositiveInt | None = None
    dropout: Rate = 0.05
    target_modules: list[str] | str = "all-linear"
    keep_adapter: bool = False


@dataclass
class HubConfig:
    """Publishing a finished run on the Hugging Face Hub; without `repo_id`, nothing is published.

    Args:
        repo_id: `OWNER/NAME`, which gives the repositories' names. These are `OWNER/NAME-bi-encoder` and
            `OWNER/NAME-cross-encoder`. With several PLMs each has its own, `OWNER/NAME-PLM-bi-encoder` and so on.
        one_repository: Put both encoders of a PLM into folders of one repository, `OWNER/NAME`.
        private: Let only the owner see them. A public repository of that name is then refused. Default: the owner's
            setting.
        branch_per_cycle: Publish all cycles' encoders, on branches `cycle-1` and so on; needs `keep_cycles`.
        license: License in the model cards, as the Hub writes it (`mit`).
    """

    repo_id: str | None = None
    one_repository: bool = False
    private: bool | None = None
    branch_per_cycle: bool = False
    license: str | None = None


@dataclass
class ContrastiveDataConfig:
    """Where the sentences and the gold scores are.

    Args:
        sentences: Sources of sentences, one or several: `.txt` files (a sentence a line, or several with `||` between
            them), or any source of pairs (`.tsv`, `.csv`, `.jsonl`, `.parquet`, a saved Dataset folder, a benchmark
            name, a Hub id), of which the distinct sentences are taken.
        max_sentences: Keep at most this many sentences, drawn with `seed`.
        dev: Pairs with gold scores that choose the checkpoint: a benchmark name, or a file as for `sentences` with a
            column `score`. Without it the last checkpoint is kept.
    """

    sentences: list[Source] = field(default_factory=list)
    column: str | None = None
    split: str | None = None
    columns: GoldColumns = field(default_factory=dict)
    max_sentences: PositiveInt | None = None
    dir: Source | None = None
    dev: Source | None = None
    test: list[Source] = field(default_factory=list)


@dataclass
class ContrastiveTrainingConfig(TrainingConfig):
    """Training of the bi-encoder.

    Args:
        method: simcse takes two passes with dropout for two views of a sentence (Gao et al. 2021); mirror_bert masks a
            span of one view's text as well (Liu et al. 2021). It gives the defaults of the other keys.
        temperature: What cosines are divided by; mirror_bert: 0.04.
        span: Characters of one view that a mask token replaces; mirror_bert: 5.
        mlp_head: Train with a linear layer and tanh on [CLS], which is thrown away afterwards; mirror_bert: False.
        both_views: Both views are anchors, and negatives of the views on their own side; mirror_bert: True.
        pooling: How a sentence's token vectors become one. Default: as the checkpoint says, else cls.
        max_length: Tokens after which a sentence is cut; mirror_bert: 50.
        prompt: Text before every sentence. Default: the checkpoint's; in a run's step 0, the run's `bi_encoder.prompt`.
        precision: Arithmetic of training. Default: auto, as for scoring; in a run's step 0, `distillation.precision`.
        attn_implementation: Attention, as transformers names it. A run's step 0 takes the run's
            `bi_encoder.attn_implementation` where there is none. Otherwise as of `te-trainer distil`.
    """

    method: Method = "simcse"
    temperature: PositiveFloat = 0.05
    span: NonNegativeInt = 0
    mlp_head: bool = True
    both_views: bool = False
    pooling: Pooling | None = None
    max_length: PositiveInt = 32
    prompt: str | None = None
    precision: PrecisionChoice | None = None
    attn_implementation: str | None = None

    defaults = TRAINER_DEFAULTS | CONTRASTIVE_ARGUMENTS["simcse"]
    origin = "SimCSE's, for BERT-base"
    managed: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
            "the dev set chooses the checkpoint by Spearman's correlation; without data.dev the last one is kept",
        ),
        "push_to_hub": "the run does not publish; `te-trainer push OUTPUT_DIR --hub.repo_id OWNER/NAME` does",
    }


@dataclass
class ContrastiveConfig:
    """From a plain PLM and sentences to a bi-encoder, by SimCSE or Mirror-BERT.

    Args:
        model: The plain PLM: a Hub id (owner/name or owner/name@revision), a local folder, or package:folder.
        report_to: Loggers: tensorboard, wandb, trackio.
    """

    model: Source = ""
    data: ContrastiveDataConfig = field(default_factory=ContrastiveDataConfig)
    contrastive: ContrastiveTrainingConfig = field(default_factory=ContrastiveTrainingConfig)
    output_dir: LocalPath = "runs/contrastive"
    seed: Seed = 2021
    report_to: list[Logger] = field(default_factory=list)
    ddp_timeout: Seconds = DDP_TIMEOUT


@dataclass
class ScoreDataConfig:
    """What is scored: a file of pairs, or a file of sentences whose nearest ones are looked for.

    Args:
        pairs: Pairs to score: a `.txt` file (`s1||s2` a line), `.tsv`, `.csv`, `.jsonl`, `.parquet`, a saved Dataset
            folder, a benchmark name (`stsb`), or a Hub id (`owner/name` or `owner/name:config`). Every row is scored.
        sentences: Sentences to search among: a `.txt` file (a sentence a line, or several with `||` between them), or
            any source as for `pairs`, of which the distinct sentences are taken.
        queries: Sentences, named as `sentences` are, whose nearest among `sentences` are looked for. Default: each
            sentence's nearest other ones.
        column: Of `sentences` and `queries`, read this one column instead of `sentence1` and `sentence2`.
        keep: Of `pairs`, write the other columns too, such as ids, after the scores.
    """

    pairs: Source | None = None
    sentences: Source | None = None
    queries: Source | None = None
    column: str | None = None
    split: str | None = None
    columns: GoldColumns = field(default_factory=dict)
    dir: Source | None = None
    keep: bool = True


@dataclass
class ScoreConfig:
    """Scores of a file of pairs, or the nearest sentences of each sentence of a file.

    Args:
        model: A bi-encoder or a cross-encoder: a Hub id (owner/name[@revision]), a local folder, package:folder, or the
            output folder of a finished run of one PLM.
        output: The file to write: .tsv (tabs and line breaks inside a text become spaces), .csv, .jsonl or .parquet.
        overwrite: Replace an output that is there already.
        top_k: Number of nearest sentences of each, with data.sentences.
        rerank: A cross-encoder, or a run that kept one, to score and order these nearest sentences anew.
        probabilities: Pairs with a column `score`, such as a filled-in file of `te-trainer annotate`: with data.pairs,
            they turn scores into probabilities that two sentences are the same, in a column of that name.
        same_from: The sentences of these pairs are the same from this score on. Default: scores are 0 and 1.
        precision: Arithmetic of the encoder; auto takes what the hardware is fast at. Cosines are float32.
        max_length: Tokens beyond this are cut. Default: as the checkpoint says.
    """

    model: Source = ""
    data: ScoreDataConfig = field(default_factory=ScoreDataConfig)
    output: LocalPath = ""
    overwrite: bool = False
    top_k: PositiveInt = 10
    rerank: Source | None = None
    probabilities: Source | None = None
    same_from: float | None = None
    precision: PrecisionChoice = "auto"
    attn_implementation: str | None = None
    batch_tokens: PositiveInt | None = None
    pooling: Pooling | None = None
    max_length: PositiveInt | None = None
    prompt: str | None = None
    ddp_timeout: Seconds = DDP_TIMEOUT


@dataclass
class EvaluationDataConfig:
    """Where the gold scores are.

    Args:
        split: Which rows of a set that has splits: `test`, or `dev` to choose between models.
    """

    dir: Source | None = None
    columns: GoldColumns = field(default_factory=dict)
    split: Literal["dev", "test"] = "test"


@dataclass
class EvaluationConfig:
    """Scores of bi-encoders, cross-encoders and ensembles on pairs with gold scores.

    Args:
        models: The models, one or several: a Hub id (owner/name or owner/name@revision), a local folder,
            package:folder, or an ensemble of them, written one+two, whose predictions are averaged. Whether a model is
            a bi- or a cross-encoder, its checkpoint says.
        tasks: What they are scored on, one or several: sts12 to sts16, stsb, sickr, qqp, qnli, mrpc; the groups sts,
            sts_sickr (with sickr: the paper's seven) and binary; or a file with sentence1, sentence2 and score.
            Default: with data.dir every set that lies there, else sts_sickr.
        max_length: Tokens beyond this are cut. Default: the checkpoint's; the paper's bi-encoders have 32.
        compare: paper sets its figures below each model that is one of its starts, or a run's encoder from one.
        seed: Seed of the bootstrap.
    """

    models: list[Source] = field(default_factory=list)
    tasks: list[Source] = field(default_factory=list)
    data: EvaluationDataConfig = field(default_factory=EvaluationDataConfig)
    pooling: Pooling | None = None
    max_length: PositiveInt | None = None
    prompt: str | None = None
    compare: Literal["paper"] | None = None
    output_dir: LocalPath = "runs/evaluation"
    seed: Seed = 2021
    ddp_timeout: Seconds = DDP_TIMEOUT


@dataclass
class PushConfig:
    """Publish a finished run: te-trainer push RUN_FOLDER --hub.repo_id OWNER/NAME, or push_to_hub.py.

    Args:
        run: Output folder of a finished run; may be given first, without --run.
    """

    run: LocalPath = ""
    hub: HubConfig = field(default_factory=HubConfig)


@dataclass
class AnnotateConfig:
    """Choose pairs to score by hand: te-trainer annotate RUN_FOLDER --output labels.tsv

    Args:
        run: Output folder of a finished run; may be given first, without --run.
        output: The .tsv file to write.
        overwrite: Replace the output if it is there.
        pairs: How many pairs to choose.
        model: PLM whose encoders are compared. Default: the run's only one.
        precision: Arithmetic of the encoder.
    """

    run: LocalPath = ""
    output: LocalPath = ""
    overwrite: bool = False
    pairs: PositiveInt = 50
    model: str | None = None
    precision: PrecisionChoice = "auto"


@dataclass
class RunConfig:
    """Trans-Encoder: from unlabelled pairs or sentences to a bi- and a cross-encoder.

    Args:
        models: The PLMs: one name, or a list of names and mappings.
        report_to: Loggers: tensorboard, wandb, trackio. One run a stage, grouped by output folder.
    """

    models: list[Annotated[ModelConfig, BeforeValidator(_entry)]] = field(default_factory=list)
    output_dir: LocalPath = "runs/trans-encoder"
    seed: Seed = 2021
    report_to: list[Logger] = field(default_factory=list)
    ddp_timeout: Seconds = DDP_TIMEOUT
    data: DataConfig = field(default_factory=DataConfig)
    mining: MiningConfig = field(default_factory=MiningConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    bi_encoder: BiEncoderConfig = field(default_factory=BiEncoderConfig)
    cross_encoder: CrossEncoderConfig = field(default_factory=CrossEncoderConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    # what the file of `distillation.step0` says
    step0: ContrastiveConfig | None = field(default=None, metadata=NOT_A_KEY)

    @property
    def mines(self) -> bool:
        """Whether pairs are mined from sentences."""
        return bool(self.data.sentences) or self.mining.pairs is not None

    @property
    def mines_all(self) -> bool:
        """Whether no pairs are given, and all are mined from sentences."""
        return bool(self.data.sentences) and not self.data.pool

    @property
    def mining_key(self) -> str:
        """The key by which pairs are mined."""
        return "data.sentences" if self.data.sentences else "mining.pairs"
