"""A checkpoint: what the files of a model's name say, whether they can start an encoder, and its weights."""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import parse_flag_from_env
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from te_trainer.compat import forget_conversions, forget_unused_conversions, outside_of_zero3
from te_trainer.config.names import is_folder, split_revision
from te_trainer.config.types import Kind
from te_trainer.data.digests import file_digest
from te_trainer.models.checkpoint_files import CheckpointFiles
from te_trainer.models.decoders import is_decoder, prepare_model
from te_trainer.models.limits import check_config, check_length, check_vocabulary, position_limit
from te_trainer.models.load_failures import NO_CONFIGURATION, why_no_configuration, why_no_model
from te_trainer.models.model_names import DECISIVE_FILES, commit_of, locate
from te_trainer.models.sentence_files import SentenceLayout, read_layout
from te_trainer.models.tokenizer import read_tokenizer
from te_trainer.models.weight_checks import refuse_misfits, refuse_stand_ins

# beside the weights: the configuration, the tokenizer, and what sentence-transformers adds
READ_FILES = (
    "config.json",
    "*token*.json",
    "*.jinja",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.codes",
    "*.spm",
    "*.tiktoken",
)
HEADS = ("classifier.", "score.")  # of classifiers, in front of the names of their weights


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that can start an encoder, with the commit of a Hub model; made by `resolve_checkpoint`."""

    name: str
    commit: str | None
    files: CheckpointFiles
    layout: SentenceLayout
    config: PretrainedConfig

    @property
    def kind(self) -> Kind:
        """`cross-encoder` where there is a classification head; else the model reads sentences one by one."""
        if "Pooling" in self.layout.modules:
            return "bi-encoder"
        architecture = (self.config.architectures or [""])[0]
        return "cross-encoder" if architecture.endswith("ForSequenceClassification") else "bi-encoder"

    @property
    def is_decoder(self) -> bool:
        """Whether the tokens of the model see only what comes before them."""
        return is_decoder(self.config)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, to look at; an encoder gets one of its own."""
        return self.load_tokenizer()

    @cached_property
    def max_length(self) -> int:
        """Tokens of a text: as many as sentence-transformers or the tokenizer reads, if the model can."""
        longest = self.layout.transformer.get("max_seq_length") or self.tokenizer.model_max_length
        return int(min(longest, position_limit(self.empty_model("bi-encoder"))))

    @cached_property
    def fingerprint(self) -> str:
        """What tells the checkpoint from another of its name: the Hub's commit, or hashes of local files."""
        if self.commit is not None:
            return self.commit
        return _hash_files(self.files.folder, self.layout)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer of the checkpoint's, as `read_tokenizer` makes it."""
        trained_as = self.kind if self.kind == "cross-encoder" or self.layout.modules else None
        # sentence-transformers infers chats of a template only where none of its files says what a model reads
        plain = bool(self.layout.modules)
        return read_tokenizer(self.files, self.config, trained_as, self.layout.lower_case, plain)

    def empty_model(self, kind: Kind) -> PreTrainedModel:
        """The model of an encoder on the device `meta`, without weights, made in a moment."""
        config = copy.deepcopy(self.config)
        auto: Any = AutoModel
        arguments: dict[str, Any] = {"add_pooling_layer": False} if has_pooler(config) else {}
        if kind == "cross-encoder":
            config.num_labels = 1
            auto, arguments = AutoModelForSequenceClassification, {}
        try:
            with outside_of_zero3(), torch.device("meta"):
                model: PreTrainedModel = auto.from_config(config, **arguments)
        except Exception as error:  # a stranger's configuration makes transformers raise many kinds
            raise self.files.refusal(why_no_model(self.files.folder, self.config, error)) from None
        return model

    def check(self, kind: Kind, max_length: int | None = None, section: str = "") -> None:
        """Refuse a tokenizer, weights, a vocabulary or a length that do not fit, before the weights are read.

        `max_length` is None for what the checkpoint says; the key `{section}max_length` chooses it.
        """
        key = f"{section}max_length"
        self._load(kind, self.tokenizer, max_length, key, device_map="meta", ignore_mismatched_sizes=True)

    def load(self, kind: Kind, max_length: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model of an encoder, in float32 whatever its files hold, and its tokenizer; refuses what `check` does."""
        tokenizer = self.load_tokenizer()
        model = self._load(kind, tokenizer, max_length, "max_length")
        forget_unused_conversions(model)
        give_plain_outputs(model.config)
        if hasattr(self.config, "quantization_config"):
            # the weights are float32 now, and are saved as such
            forget_conversions(model)
        if self.commit is not None:
            # what is saved of the model names its start so, and not by a folder of this machine
            model.name_or_path = model.config.name_or_path = split_revision(self.name)[0]
        if self.is_decoder:
            prepare_model(model, tokenizer)
        return model, tokenizer

    def _load(
        self, kind: Kind, tokenizer: PreTrainedTokenizerBase, max_length: int | None, key: str, **arguments: Any
    ) -> PreTrainedModel:
        locate(self.name, weights=True)
        auto: Any = AutoModel
        if kind == "cross-encoder":
            auto, arguments = AutoModelForSequenceClassification, arguments | {"num_labels": 1}
        # FSDP's, on by accelerate's default: ranks but the first would get no weights that the checkpoint lacks
        if parse_flag_from_env("ACCELERATE_USE_FSDP"):
            os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        try:
            model, info = auto.from_pretrained(
                self.files.folder, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **arguments
            )
        except Exception as error:  # files of strangers make transformers, torch and pickle raise many kinds
            raise self.files.refusal(why_no_model(self.files.folder, self.config, error)) from None
        refuse_misfits(self.files, model, info, new_head=kind == "cross-encoder" and self.kind != "cross-encoder")
        if kind == "bi-encoder" and not self.config.architectures and not self.layout.modules:
            self._refuse_nameless_head(model, info["unexpected_keys"])
        check_vocabulary(self.files, model, tokenizer)
        length = self.max_length if max_length is None else max_length
        check_length(self.name, model, tokenizer, length, key, sides=1 if kind == "bi-encoder" else 2)
        return cast(PreTrainedModel, model)

    def _refuse_nameless_head(self, model: PreTrainedModel, left_over: Iterable[str]) -> None:
        """Refuse weights of a head that the configuration does not name: nobody knows what the model was trained as."""
        if (head := next((key for key in sorted(left_over) if key.startswith(HEADS)), None)) is not None:
            vectors = type(model).__name__
            pairs = getattr(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(self.config), None), "__name__", "")
            scores = f'["{pairs}"] if it scores pairs, or ' if pairs else ""
            raise self.files.refusal(
                f"config.json has no architectures, and the weights have a head ({head}); write there "
                f'"architectures": {scores}["{vectors}"] if the vectors below the head are wanted'
            )


def resolve_checkpoint(name: str | Checkpoint, revision: str | None = None) -> Checkpoint:
    """The checkpoint of a name; its configuration is read once, and again where a file of a local folder has changed.

    Args:
        name: What `models.model_names` says, or a checkpoint, which is given back.
        revision: Branch, tag or commit of a Hub id; `owner/name@revision` says the same.

    Raises:
        InputError: There is no such model, it is neither an encoder nor a decoder (but both, as T5 is), it needs code
            of its own, or its configuration says what no model has.
    """
    if isinstance(name, Checkpoint):
        if revision is not None:
            raise name.files.refusal(f"the checkpoint is resolved already; leave out revision='{revision}'")
        return name
    if revision is not None:
        name = f"{name}@{revision}"
    folder = Path(locate(name, weights=False))
    files = [path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.is_file()]
    return _read(name, folder, frozenset((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


def local_fingerprint(name: str) -> str | None:
    """The fingerprint of a checkpoint in a local folder, of which no more is read; None where no weights lie there."""
    if not is_folder(name):
        return None
    layout = read_layout(CheckpointFiles(name, Path(name)))
    return _hash_files(Path(name, layout.modules.get("Transformer", "")), layout) or None


def give_plain_outputs(config: PretrainedConfig) -> None:
    """Let a model give a mapping, without the attentions and hidden states that nothing here reads.

    Configurations made for TorchScript ask for no mapping. One that asks for attentions can only be saved with the
    attention `eager`.
    """
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False


def has_pooler(config: PretrainedConfig) -> bool:
    """Whether `AutoModel` makes BERT's own pooler, which is no part of a sentence's vector."""
    model_class: Any = MODEL_MAPPING[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def _hash_files(folder: Path, layout: SentenceLayout) -> str:
    """A hash of each weight file, and one of what else is read of a checkpoint; none where no weights lie there.

    `folder` holds the weights; it is a module's of sentence-transformers where `layout` says so.
    """
    digests = [
        file_digest(path)[:16] for path in sorted([*folder.glob("[!.]*.safetensors"), *folder.glob("[!.]*.bin")])
    ]
    if digests:
        root = folder
        for _ in Path(layout.modules.get("Transformer", "")).parts:
            root = root.parent
        beside = [path for pattern in READ_FILES for path in folder.glob(pattern)]
        small = sorted({*beside, *(path for pattern in DECISIVE_FILES for path in root.glob(pattern))})
        named = "".join(f"{path.name} {file_digest(path)}" for path in small)
        digests.append(hashlib.sha256(named.encode()).hexdigest()[:16])
    return " ".join(digests)


@cache
def _read(name: str, folder: Path, state: frozenset[tuple[Path, int, int]]) -> Checkpoint:
    """Read a checkpoint; `state` tells the files of a folder from the same files after a change."""
    layout = read_layout(CheckpointFiles(name, folder))
    files = CheckpointFiles(name, folder / layout.modules.get("Transformer", ""))
    refuse_stand_ins(files)
    content = files.read_json("config.json", dict)
    if content is None:
        raise files.refusal(NO_CONFIGURATION)
    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:  # families raise many kinds for values that they cannot use
        raise files.loading_failure(error, "config.json", why_no_configuration(content, error)) from None
    check_config(files, config)
    return Checkpoint(name, commit_of(name), files, layout, config)
