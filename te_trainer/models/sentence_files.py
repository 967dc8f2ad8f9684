"""What sentence-transformers writes beside a model: read, refused by name where it would be lost, and written again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import PretrainedConfig

from te_trainer.config.schema import Pooling
from te_trainer.models.checkpoint_files import CheckpointFiles

MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
# In the order in which sentence-transformers looks for them.
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
SUPPORTED_MODULES = ["Transformer", "Pooling", "Normalize"]
POOLING_BY_MODE: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
KEPT_KEYS = ("query_length", "document_length", "unpad_inputs")  # they change no score of `encode`
# Arguments of `from_pretrained` that change no score, or that te_trainer sets itself.
HARMLESS_ARGUMENTS = {
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "padding_side",
    "trust_remote_code",
    "use_safetensors",
}
LOADING_KEYS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
# Types of the values that are read, by file.
MODEL_KEYS = {"similarity_fn_name": str, "truncate_dim": int, "prompts": dict, "default_prompt_name": str}
TRANSFORMER_KEYS = {
    "max_seq_length": int,
    "do_lower_case": bool,
    "query_length": int,
    "document_length": int,
    "unpad_inputs": bool,
    "transformer_task": str,
    "module_output_name": str,
    "modality_config": dict,
    "processing_kwargs": dict,
    **dict.fromkeys(LOADING_KEYS, dict),
}
# Whether te_trainer does what a value of a key of `sentence_bert_config.json` says; it does nothing of other keys.
IS_KEPT: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("max_seq_length", "do_lower_case", *KEPT_KEYS), lambda value: True),
    "transformer_task": lambda task: task in {"feature-extraction", "sequence-classification"},
    "module_output_name": lambda name: name in {"token_embeddings", "scores"},
    "modality_config": lambda config: (
        isinstance(config.get("text"), dict) and config["text"].get("method") == "forward"
    ),
    "processing_kwargs": lambda kwargs: not any(kwargs.get(part) for part in ("common", "text")),
    **dict.fromkeys(LOADING_KEYS, lambda arguments: set(arguments) <= HARMLESS_ARGUMENTS),
}


@dataclass(frozen=True)
class SentenceLayout:
    """What a checkpoint's files say of sentence-transformers, as far as it is not the model's or the tokenizer's.

    Args:
        prompts: texts by their names.
        default_prompt_name: of the prompt that stands in front of every sentence; None for none.
        include_prompt: whether a prompt's tokens are pooled.
        normalize: whether vectors are normalised after pooling.
        similarity: the name of the function that compares vectors.
        lower_case: whether texts are lower-cased before they are tokenised.
        transformer: other keys of `sentence_bert_config.json`.
    """

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    include_prompt: bool = True
    normalize: bool = False
    similarity: str = "cosine"
    lower_case: bool = False
    transformer: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The text in front of every sentence."""
        return self.prompts.get(self.default_prompt_name or "", "")

    def write(self, folder: Path, *, pooling: Pooling, max_length: int, prompt: str, hidden_size: int) -> None:
        """Write the files in the layout that sentence-transformers has read since version 2.

        Args:
            prompt: the text in front of every sentence, if it is another than what was read.
        """
        prompts, default = dict(self.prompts), self.default_prompt_name
        if prompt != self.prompt:
            default = "default" if prompt else None
            prompts |= {"default": prompt} if prompt else {}
        modules = ["Transformer", "Pooling", *(["Normalize"] if self.normalize else [])]
        files: dict[str, Any] = {
            MODULES: [
                {
                    "idx": index,
                    "name": str(index),
                    "path": f"{index}_{module}" if index else "",
                    "type": f"sentence_transformers.models.{module}",
                }
                for index, module in enumerate(modules)
            ],
            TRANSFORMER_CONFIGS[0]: {
                "max_seq_length": max_length,
                "do_lower_case": self.lower_case,
                **self.transformer,
            },
            MODEL_CONFIG: {
                "similarity_fn_name": self.similarity,
                "prompts": prompts,
                "default_prompt_name": default,
            },
            "1_Pooling/config.json": {
                "word_embedding_dimension": hidden_size,
                "pooling_mode_cls_token": pooling == "cls",
                "pooling_mode_mean_tokens": pooling == "mean",
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
                "pooling_mode_lasttoken": pooling == "last",
                **({} if self.include_prompt else {"include_prompt": False}),
            },
        }
        if self.normalize:
            files["2_Normalize/config.json"] = {"module_input_name": "sentence_embedding"}
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class SentenceFiles:
    """The files of sentence-transformers in a checkpoint's folder; keys whose value is null are left out.

    Args:
        files: The checkpoint's folder.
        modules: Kinds and folders of the modules, in their order; empty where there is no `modules.json`.
        transformer: Content of `sentence_bert_config.json`, under any of its names.
        model: Content of `config_sentence_transformers.json`.
        pooling: Content of the module Pooling's `config.json`; None where there is no such module.
    """

    files: CheckpointFiles
    modules: list[tuple[str, str]]
    transformer: dict[str, Any]
    model: dict[str, Any]
    pooling: dict[str, Any] | None

    @classmethod
    def read(cls, files: CheckpointFiles) -> SentenceFiles:
        """Read the files of a folder.

        Raises:
            InputError: A file is broken, holds a value of another type, or says what te_trainer would lose.
        """
        modules = _read_modules(files)
        folders = dict(modules)
        model = files.read_mapping(MODEL_CONFIG, MODEL_KEYS)
        for key, text in model.get("prompts", {}).items():
            files.check_value(f"prompts of {MODEL_CONFIG}", key, text, str)
        pooling = None
        if "Pooling" in folders:
            file = f"{folders['Pooling']}/config.json"
            if not (files.folder / file).is_file():
                raise files.refusal(f"{MODULES} names a pooling, but {file} is missing; copy it again")
            pooling = files.read_mapping(file, {"include_prompt": bool})
        return cls(files, modules, _read_transformer(files, folders.get("Transformer", "")), model, pooling)

    @property
    def transformer_folder(self) -> Path:
        """The folder of the model's configuration, tokenizer and weights."""
        return self.files.folder / dict(self.modules).get("Transformer", "")

    @property
    def lower_case(self) -> bool:
        """Whether texts are lower-cased before they are tokenised."""
        return bool(self.transformer.get("do_lower_case"))

    @property
    def prompts(self) -> dict[str, str]:
        """Texts by their names."""
        return {key: text for key, text in self.model.get("prompts", {}).items() if text is not None}

    def layout(self) -> SentenceLayout:
        """What a bi-encoder that is saved again keeps of the files.

        Raises:
            InputError: They say what te_trainer does not do.
        """
        normalize = "Normalize" in dict(self.modules)
        similarity = self.model.get("similarity_fn_name") or "cosine"
        if similarity != "cosine" and not (similarity == "dot" and normalize):
            raise self.files.refusal(
                f"similarity_fn_name in {MODEL_CONFIG} is '{similarity}', but te_trainer compares vectors by their "
                "cosine; set it to cosine there if cosines are wanted"
            )
        if "truncate_dim" in self.model:
            raise self.files.refusal(
                f"truncate_dim in {MODEL_CONFIG} shortens vectors, which te_trainer does not; remove the key if whole "
                "vectors are wanted"
            )
        kind = self.model.get("model_type", "SentenceTransformer")
        if kind not in {"SentenceTransformer", "CrossEncoder"}:
            raise self.files.refusal(f"a {kind!s:.40} of sentence-transformers; start from a SentenceTransformer")
        return SentenceLayout(
            prompts=self.prompts,
            default_prompt_name=self._default_prompt_name(),
            include_prompt=(self.pooling or {}).get("include_prompt", True),
            normalize=normalize,
            similarity=similarity,
            lower_case=self.lower_case,
            transformer={key: self.transformer[key] for key in KEPT_KEYS if key in self.transformer},
        )

    def pooling_mode(self, key: str = "pooling") -> Pooling | None:
        """The pooling that the files name; None where they name none.

        Args:
            key: Key of the configuration that would choose another pooling.

        Raises:
            InputError: They name another than `cls`, `mean` and `last`, or several.
        """
        if self.pooling is None:
            return None
        # sentence-transformers 6 writes one name or several; earlier versions a flag for each kind
        modes = self.pooling.get("pooling_mode") or [
            mode.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
            for mode, flag in self.pooling.items()
            if mode.startswith("pooling_mode_") and flag
        ]
        modes = [modes] if isinstance(modes, str) else modes
        if isinstance(modes, list) and len(modes) == 1 and isinstance(modes[0], str) and modes[0] in POOLING_BY_MODE:
            return POOLING_BY_MODE[modes[0]]
        raise self.files.refusal(f"its pooling is none of cls, mean and last; choose one with the key {key}")

    def activation(self, config: PretrainedConfig) -> Literal["sigmoid", "identity"]:
        """How sentence-transformers makes scores of a cross-encoder's logits; sigmoid where nothing says otherwise.

        Raises:
            InputError: In another way than those two, or of other texts than the pair alone.
        """
        if self.prompts.get(self._default_prompt_name() or ""):
            raise self.files.refusal(
                f"default_prompt_name in {MODEL_CONFIG} puts a text in front of its pairs, which te_trainer does not; "
                "set it to null if scores without it are wanted"
            )
        # version 6 has a file of its own for it; earlier ones wrote it into the model's configuration
        in_config = getattr(config, "sentence_transformers", None)
        path = (
            self.model.get("activation_fn")
            or (in_config.get("activation_fn") if isinstance(in_config, dict) else None)
            or getattr(config, "sbert_ce_default_activation_function", None)
            or "Sigmoid"
        )
        activation = str(path).rpartition(".")[2].lower()
        if activation == "sigmoid":
            return "sigmoid"
        if activation == "identity":
            return "identity"
        raise self.files.refusal(
            f"its scores are the {path} of its logits; start from a cross-encoder whose scores are sigmoids or logits"
        )

    def _default_prompt_name(self) -> str | None:
        default: str | None = self.model.get("default_prompt_name")
        if default is not None and default not in self.prompts:
            raise self.files.refusal(
                f"default_prompt_name in {MODEL_CONFIG} is '{default}', which is none of its prompts; correct the file"
            )
        return default


def _read_modules(files: CheckpointFiles) -> list[tuple[str, str]]:
    modules = []
    for module in files.read_json(MODULES, list) or []:
        kind, path = (module.get(key) if isinstance(module, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(path, str):
            raise files.refusal(f"a module in {MODULES} has no type or no path; copy the file again")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise files.refusal(f"the path {path} in {MODULES} leaves the model's folder; correct the file")
        name = kind.rpartition(".")[2]
        if kind.partition(".")[0] != "sentence_transformers" or "." not in kind:
            raise files.refusal(f"its module {kind} is code of its own, which te_trainer does not run")
        if name not in SUPPORTED_MODULES:
            raise files.refusal(
                f"its module {name} would be lost; start from a checkpoint of Transformer and Pooling only"
            )
        if module.get("kwargs"):
            raise files.refusal(f"the kwargs of its module {name} in {MODULES} would be lost; remove them")
        modules.append((name, path))
    kinds = [kind for kind, _ in modules]
    if kinds != SUPPORTED_MODULES[: len(kinds)]:
        raise files.refusal(
            f"its modules are {', '.join(kinds)}, where Transformer, Pooling and at most a Normalize are expected, in "
            "this order; start from another checkpoint"
        )
    if "Normalize" in kinds:
        file = f"{dict(modules)['Normalize']}/config.json"
        normalize = files.read_mapping(file, {})
        for key in ("module_input_name", "module_output_name"):
            if normalize.get(key, "sentence_embedding") != "sentence_embedding":
                raise files.refusal(f"{key} in {file} is not sentence_embedding; start from another checkpoint")
    return modules


def _read_transformer(files: CheckpointFiles, folder: str) -> dict[str, Any]:
    paths = [str(Path(folder, file)) for file in TRANSFORMER_CONFIGS]
    file = next((path for path in paths if (files.folder / path).is_file()), paths[0])
    content = files.read_mapping(file, TRANSFORMER_KEYS)
    for key, kind in TRANSFORMER_KEYS.items():
        if kind is int and content.get(key, 1) < 1:
            raise files.refusal(f"{key} in {file} is {content[key]}, where 1 or more is expected; correct the file")
    for key, value in content.items():
        if value != {} and not IS_KEPT.get(key, lambda value: False)(value):
            raise files.refusal(f"{key} in {file} would be lost; remove it, or start from another checkpoint")
    return content
