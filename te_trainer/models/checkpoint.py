"""A model's name, resolved once: where its files lie, at which commit, and what they say of the model."""

from __future__ import annotations

import copy
import hashlib
import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

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
from te_trainer.models.locate import commit_of, locate, with_revision
from te_trainer.models.sentence_files import SentenceLayout, read_layout
from te_trainer.models.tokenizer import read_tokenizer
from te_trainer.models.weights import check_weight_files, refuse_misfits, refuse_stand_ins


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that can start an encoder; made by `resolve_checkpoint`.

    Args:
        name: Hub id (`owner/name@revision` where one is chosen), local folder or `package:folder`, as a user wrote it.
        commit: Commit of a Hub model; None of a local folder.
        files: The folder of the model's configuration, tokenizer and weights.
        layout: What sentence-transformers has written beside them.
        config: The model's configuration; not to be changed.
    """

    name: str
    commit: str | None
    files: CheckpointFiles
    layout: SentenceLayout
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
        longest = self.layout.transformer.get("max_seq_length") or self.tokenizer.model_max_length
        return int(min(longest, position_limit(self.empty_model("bi-encoder"))))

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
        trained_as = self.kind if self.kind == "cross-encoder" or self.layout.modules else None
        return read_tokenizer(self.files, self.config, trained_as, self.layout.lower_case)

    def empty_model(self, kind: Kind) -> PreTrainedModel:
        """The model of an encoder on the device `meta`, without weights, made in a moment."""
        config = copy.deepcopy(self.config)
        with torch.device("meta"):
            if kind == "bi-encoder":
                without_pooler = {"add_pooling_layer": False} if has_pooler(config) else {}
                model: PreTrainedModel = AutoModel.from_config(config, **without_pooler)
            else:
                config.num_labels = 1
                model = AutoModelForSequenceClassification.from_config(config)
        return model

    def check(self, kind: Kind, max_length: int | None = None, section: str = "") -> None:
        """Refuse what cannot start an encoder of a kind, before its weights are read.

        Args:
            kind: Kind of the encoder; a cross-encoder may get a new head.
            max_length: Tokens of a text; None for what the checkpoint says.
            section: Of the configuration, whose key `max_length` chooses it; ends with a dot.

        Raises:
            InputError: The tokenizer, the weights, the vocabulary or the length do not fit.
        """
        tokenizer = self.tokenizer
        # last: the weights of a Hub model are large, and may have to be downloaded first
        model = self._from_pretrained(kind, device_map="meta", ignore_mismatched_sizes=True)
        self._check_fit(kind, model, tokenizer, self.max_length if max_length is None else max_length, section)

    def load(self, kind: Kind, max_length: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model of an encoder, in float32 whatever the checkpoint's dtype, and its tokenizer.

        Raises:
            InputError: As `check`.
        """
        tokenizer = self.load_tokenizer()
        model = self._from_pretrained(kind)
        self._check_fit(kind, model, tokenizer, max_length)
        model.config.return_dict = True  # configurations made for TorchScript say otherwise
        if self.commit is not None:
            # what is saved of the model names its start so, and not by a folder of this machine
            model.name_or_path = model.config.name_or_path = split_revision(self.name)[0]
        if self.is_decoder:
            prepare_model(model, tokenizer)
        return model, tokenizer

    def _from_pretrained(self, kind: Kind, **arguments: Any) -> PreTrainedModel:
        locate(self.name, weights=True)
        check_weight_files(self.files, self.config)
        auto: Any = AutoModel
        if kind == "cross-encoder":
            auto, arguments = AutoModelForSequenceClassification, arguments | {"num_labels": 1}
        try:
            model, info = auto.from_pretrained(
                self.files.folder,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
                **arguments,
            )
        except Exception as error:  # files of strangers make transformers, torch and pickle raise many kinds
            reason = first_line(error)
            raise self.files.refusal(f"its configuration and weights make no model ({reason})") from None
        refuse_misfits(self.files, model, info, new_head=kind == "cross-encoder" and self.kind != "cross-encoder")
        return cast(PreTrainedModel, model)

    def _check_fit(
        self,
        kind: Kind,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        section: str = "",
    ) -> None:
        check_vocabulary(self.files, model, tokenizer)
        sides = 1 if kind == "bi-encoder" else 2
        check_length(self.name, model, tokenizer, max_length, f"{section}max_length", sides)


_resolved: dict[str, tuple[Any, Checkpoint]] = {}  # by name, with what the folder held


def resolve_checkpoint(name: str | Checkpoint, revision: str | None = None) -> Checkpoint:
    """The checkpoint of a name; its configuration is read once, and again where a file of a local folder has changed.

    Args:
        name: Hub id, local folder, `package:folder`, or a checkpoint, which is given back.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        InputError: There is no such model, it is neither an encoder nor a decoder (but both, as T5 is), it needs code
            of its own, or its configuration says what no model has.
    """
    if isinstance(name, Checkpoint):
        if revision is not None:
            raise name.files.refusal(f"the checkpoint is resolved already; leave out revision='{revision}'")
        return name
    if revision is not None:
        name = with_revision(name, revision)
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
    layout = read_layout(CheckpointFiles(name, folder))
    files = CheckpointFiles(name, folder / layout.modules.get("Transformer", ""))
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
    return Checkpoint(name, commit, files, layout, config)


def _file_state(path: Path) -> tuple[Path, int, int]:
    try:
        state = path.stat()
    except OSError:  # a link to nothing, or a file that is gone by now
        return path, 0, 0
    return path, state.st_mtime_ns, state.st_size
