"""A model's name, resolved once: where its files lie, at which commit, and what they say of the model."""

from __future__ import annotations

import copy
import hashlib
import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from te_trainer.config.revision import split_revision
from te_trainer.config.schema import Kind
from te_trainer.models.checkpoint_files import CheckpointFiles, first_line
from te_trainer.models.decoders import is_decoder, prepare_model
from te_trainer.models.limits import check_config, check_length, check_sizes, check_vocabulary, position_limit
from te_trainer.models.locate import commit_of, locate
from te_trainer.models.sentence_files import SentenceFiles, SentenceLayout
from te_trainer.models.tokenizer import read_tokenizer
from te_trainer.models.weights import check_weights, refuse_misfits, refuse_stand_ins


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that can start an encoder; made by `resolve_checkpoint`.

    Args:
        name: Hub id (`owner/name@revision` where one is chosen), local folder or `package:folder`, as a user wrote it.
        commit: Commit of a Hub model; None of a local folder.
        files: The folder of the model's configuration, tokenizer and weights.
        sentence_files: What sentence-transformers has written beside them.
        config: The model's configuration; not to be changed.
    """

    name: str
    commit: str | None
    files: CheckpointFiles
    sentence_files: SentenceFiles
    config: PretrainedConfig

    @property
    def kind(self) -> Kind:
        """`cross-encoder` where there is a classification head; else the model reads sentences one by one."""
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
        limit = position_limit(self.empty_model("bi-encoder"))
        return int(min(self.sentence_files.transformer.get("max_seq_length") or self.tokenizer.model_max_length, limit))

    @cached_property
    def layout(self) -> SentenceLayout:
        """What a bi-encoder that is saved again keeps; raises InputError where te_trainer does otherwise."""
        return self.sentence_files.layout()

    @cached_property
    def fingerprint(self) -> str:
        """What tells the checkpoint from another of its name: the Hub's commit, or hashes of local weight files."""
        if self.commit is not None:
            return self.commit
        digests = []
        for path in sorted([*self.files.folder.glob("*.safetensors"), *self.files.folder.glob("*.bin")]):
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest()[:16])
        return " ".join(digests)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer of the checkpoint's, as `read_tokenizer` makes it."""
        trained_as = self.kind if self.kind == "cross-encoder" or self.sentence_files.modules else None
        return read_tokenizer(self.files, self.config, trained_as, self.sentence_files.lower_case)

    def empty_model(self, kind: Kind) -> PreTrainedModel:
        """The model of an encoder on the device `meta`, without weights, made in a moment."""
        config = copy.deepcopy(self.config)
        with torch.device("meta"):
            if kind == "bi-encoder":
                return AutoModel.from_config(config, **({"add_pooling_layer": False} if has_pooler(config) else {}))
            config.num_labels = 1
            return AutoModelForSequenceClassification.from_config(config)

    def check(self, kind: Kind, max_length: int | None = None, length_key: str = "max_length") -> None:
        """Refuse what cannot start an encoder of a kind, before its weights are read.

        Args:
            kind: Kind of the encoder; a cross-encoder may get a new head.
            max_length: Tokens of a text; None for what the checkpoint says.
            length_key: Key of the configuration that chooses `max_length`.

        Raises:
            InputError: The tokenizer, the weights, the vocabulary or the length do not fit.
        """
        tokenizer = self.tokenizer
        # last: the weights of a Hub model are large, and may have to be downloaded first
        locate(self.name, weights=True)
        auto, arguments = _auto_class(kind)
        model = check_weights(self.files, auto, self.config, self._gets_new_head(kind), **arguments)
        check_vocabulary(self.files, model, tokenizer)
        length = self.max_length if max_length is None else max_length
        check_length(self.name, model, tokenizer, length, length_key, sides=1 if kind == "bi-encoder" else 2)

    def load(self, kind: Kind, max_length: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model of an encoder, in float32 whatever the checkpoint's dtype, and its tokenizer.

        Raises:
            InputError: As `check`, or the weights cannot be loaded.
        """
        locate(self.name, weights=True)
        auto, arguments = _auto_class(kind)
        try:
            model, info = auto.from_pretrained(
                self.files.folder,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
                **arguments,
            )
        except Exception as error:  # files of strangers make transformers, torch and pickle raise many kinds
            raise self.files.refusal(f"its weights cannot be loaded ({first_line(error)})") from None
        refuse_misfits(self.files, model, info, self._gets_new_head(kind))
        tokenizer = self.load_tokenizer()
        check_length(self.name, model, tokenizer, max_length, "max_length", sides=1 if kind == "bi-encoder" else 2)
        check_vocabulary(self.files, model, tokenizer)
        model.config.return_dict = True  # configurations made for TorchScript say otherwise
        if self.commit is not None:
            # what is saved of the model names its start so, and not by a folder of this machine
            model.name_or_path = model.config.name_or_path = split_revision(self.name)[0]
        if self.is_decoder:
            prepare_model(model, tokenizer)
        return model, tokenizer

    def _gets_new_head(self, kind: Kind) -> bool:
        return kind == "cross-encoder" and self.kind != "cross-encoder"


_resolved: dict[str, tuple[Any, Checkpoint]] = {}  # by name, with what the folder held


def resolve_checkpoint(name: str | Checkpoint) -> Checkpoint:
    """The checkpoint of a name; its configuration is read once, and again where a file of a local folder has changed.

    Args:
        name: Hub id, local folder, `package:folder`, or a checkpoint, which is given back.

    Raises:
        InputError: There is no such model, it is neither an encoder nor a decoder (but both, as T5 is), it needs code
            of its own, or its configuration says what no model has.
    """
    if isinstance(name, Checkpoint):
        return name
    folder = Path(locate(name, weights=False))
    state = folder, *(_file_state(path) for path in sorted([*folder.glob("*"), *folder.glob("*/*")]))
    if name not in _resolved or _resolved[name][0] != state:
        _resolved[name] = state, _read(name, folder)
    return _resolved[name][1]


def has_pooler(config: PretrainedConfig) -> bool:
    """Whether `AutoModel` makes BERT's own pooler, which is no part of a sentence's vector."""
    model_class: Any = MODEL_MAPPING[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def _read(name: str, folder: Path) -> Checkpoint:
    sentence_files = SentenceFiles.read(CheckpointFiles(name, folder))
    files = CheckpointFiles(name, sentence_files.transformer_folder)
    commit = commit_of(name)
    refuse_stand_ins(files)
    content = files.read_json("config.json", dict) or {}
    check_sizes(files, content)
    architectures = content.get("architectures") or []
    files.check_value("config.json", "architectures", architectures, list)
    if not all(isinstance(architecture, str) for architecture in architectures):
        raise files.refusal("architectures in config.json are no names; correct the file")
    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:  # families raise many kinds for values that they cannot use
        if "auto_map" in content and "trust_remote_code" in str(error):
            raise files.refusal(
                "it needs code of its own (auto_map in config.json), which te_trainer does not run; start from a model "
                "that transformers knows"
            ) from None
        where = "repository" if commit else "folder"
        raise files.refusal(f"no model in that {where} ({first_line(error)})") from None
    check_config(files, config)
    return Checkpoint(name, commit, files, sentence_files, config)


def _file_state(path: Path) -> tuple[Path, int, int]:
    try:
        state = path.stat()
    except OSError:  # a link to nothing, or a file that is gone by now
        return path, 0, 0
    return path, state.st_mtime_ns, state.st_size


def _auto_class(kind: Kind) -> tuple[Any, dict[str, Any]]:
    return (AutoModel, {}) if kind == "bi-encoder" else (AutoModelForSequenceClassification, {"num_labels": 1})
