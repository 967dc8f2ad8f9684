"""What sentence-transformers writes beside a model: read, refused where it would be lost, and written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import PretrainedConfig

from te_trainer.config.types import Pooling
from te_trainer.files.atomic import remove
from te_trainer.files.records import write_json
from te_trainer.models.checkpoint_files import CheckpointFiles

MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
TRANSFORMER_CONFIG = "sentence_bert_config.json"  # or with another family in place of bert
ANY_TRANSFORMER_CONFIG = "sentence_*_config.json"
POOLING_FOLDER, NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"
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
MODEL_TYPES = {"similarity_fn_name": str, "truncate_dim": int, "prompts": dict, "default_prompt_name": str}
TRANSFORMER_TYPES: dict[str, type] = {
    **dict.fromkeys(("max_seq_length", "query_length", "document_length"), int),
    **dict.fromkeys(("do_lower_case", "unpad_inputs"), bool),
}
# Keys of `sentence_bert_config.json` with other types, and whether te_trainer does what a value says.
IS_KEPT: dict[str, Callable[[Any], bool]] = {
    "transformer_task": lambda task: task in ("feature-extraction", "sequence-classification"),
    "module_output_name": lambda name: name in ("token_embeddings", "scores"),
    # with a message beside the text, sentence-transformers makes a chat of each sentence
    "modality_config": lambda config: config.keys() == {"text"} and config["text"]["method"] == "forward",
    "processing_kwargs": lambda kwargs: not kwargs.get("common") and not kwargs.get("text"),
    **dict.fromkeys(
        ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
        lambda arguments: arguments.keys() <= HARMLESS_ARGUMENTS,
    ),
}


@dataclass(frozen=True)
class SentenceLayout:
    """What the files of sentence-transformers say; keys whose value is null are left out."""

    model: dict[str, Any] = field(default_factory=dict)  # `config_sentence_transformers.json`
    transformer: dict[str, Any] = field(default_factory=dict)  # `sentence_bert_config.json`, under any of its names
    pooling: dict[str, Any] = field(default_factory=dict)  # the module Pooling's `config.json`
    modules: dict[str, str] = field(default_factory=dict)  # folders by kind, in order; empty without `modules.json`

    @property
    def prompts(self) -> dict[str, str]:
        return {key: text for key, text in self.model.get("prompts", {}).items() if text is not None}

    @property
    def prompt(self) -> str:
        """The text in front of every sentence."""
        return self.prompts.get(self.model.get("default_prompt_name", ""), "")

    @property
    def include_prompt(self) -> bool:
        """Whether a prompt's tokens are pooled."""
        return bool(self.pooling.get("include_prompt", True))

    @property
    def lower_case(self) -> bool:
        return bool(self.transformer.get("do_lower_case"))

    def write(self, folder: Path, *, pooling: Pooling, max_length: int, prompt: str, hidden_size: int) -> None:
        """Write the files in the layout that sentence-transformers has read since version 2."""
        prompts, default = self.prompts, self.model.get("default_prompt_name")
        if prompt != self.prompt:
            default = "default" if prompt else None
            prompts |= {"default": prompt} if prompt else {}
        folders = {"Transformer": "", "Pooling": POOLING_FOLDER}
        folders |= {"Normalize": NORMALIZE_FOLDER} if "Normalize" in self.modules else {}
        files: dict[str, Any] = {
            MODULES: [
                {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{module}"}
                for index, (module, path) in enumerate(folders.items())
            ],
            TRANSFORMER_CONFIG: {
                "max_seq_length": max_length,
                "do_lower_case": self.lower_case,
                **{key: self.transformer[key] for key in KEPT_KEYS if key in self.transformer},
            },
            MODEL_CONFIG: {
                "similarity_fn_name": self.model.get("similarity_fn_name", "cosine"),
                "prompts": prompts,
                "default_prompt_name": default,
            },
            f"{POOLING_FOLDER}/config.json": {
                "word_embedding_dimension": hidden_size,
                "pooling_mode_cls_token": pooling == "cls",
                "pooling_mode_mean_tokens": pooling == "mean",
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
                "pooling_mode_lasttoken": pooling == "last",
                **({} if self.include_prompt else {"include_prompt": False}),
            },
        }
        if "Normalize" in folders:
            files[f"{NORMALIZE_FOLDER}/config.json"] = {"module_input_name": "sentence_embedding"}
        remove_layout(folder)
        for name, content in files.items():
            write_json(folder / name, content)


def remove_layout(folder: Path) -> None:
    """Remove what says how an encoder that was saved in a folder before reads texts and makes scores."""
    for pattern in (MODULES, MODEL_CONFIG, ANY_TRANSFORMER_CONFIG, POOLING_FOLDER, NORMALIZE_FOLDER):
        for path in folder.glob(pattern):
            remove(path)


def read_layout(files: CheckpointFiles) -> SentenceLayout:
    """Read the files of a checkpoint's folder; refuse what te_trainer would lose."""
    modules = _read_modules(files)
    model = files.read_mapping(MODEL_CONFIG, MODEL_TYPES)
    for key, text in model.get("prompts", {}).items():
        if not isinstance(text, str | None):
            raise files.refusal(f"the prompt '{key}' in {MODEL_CONFIG} is no text; correct the file")
    pooling = {}
    if "Pooling" in modules:
        file = f"{modules['Pooling']}/config.json"
        if not (files.folder / file).is_file():
            raise files.refusal(f"{MODULES} names a pooling, but {file} is missing; copy it again")
        pooling = files.read_mapping(file, {"include_prompt": bool})
    layout = SentenceLayout(model, _read_transformer(files, modules.get("Transformer", "")), pooling, modules)
    default = model.get("default_prompt_name")
    if default is not None and default not in layout.prompts:
        raise files.refusal(
            f"default_prompt_name in {MODEL_CONFIG} is '{default}', which is none of its prompts; correct the file"
        )
    return layout


def check_vectors(files: CheckpointFiles, layout: SentenceLayout) -> None:
    """Refuse a bi-encoder whose vectors te_trainer would make or compare in another way."""
    similarity = layout.model.get("similarity_fn_name", "cosine")
    if similarity != "cosine" and not (similarity == "dot" and "Normalize" in layout.modules):
        raise files.refusal(
            f"similarity_fn_name in {MODEL_CONFIG} is '{similarity}', but te_trainer compares vectors by their cosine; "
            "set it to cosine there if cosines are wanted"
        )
    if "truncate_dim" in layout.model:
        raise files.refusal(
            f"truncate_dim in {MODEL_CONFIG} shortens vectors, which te_trainer does not; remove the key if whole "
            "vectors are wanted"
        )
    kind = layout.model.get("model_type", "SentenceTransformer")
    if kind not in {"SentenceTransformer", "CrossEncoder"}:
        raise files.refusal(f"a {kind!s:.40} of sentence-transformers; start from a SentenceTransformer")


def saved_pooling(files: CheckpointFiles, layout: SentenceLayout, section: str = "") -> Pooling | None:
    """The pooling that the files name, None where they name none; the key `{section}pooling` would choose another."""
    if "Pooling" not in layout.modules:
        return None
    # sentence-transformers 6 writes one name or several; earlier versions a flag for each kind
    modes = layout.pooling.get("pooling_mode") or [
        mode.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for mode, flag in layout.pooling.items()
        if mode.startswith("pooling_mode_") and flag
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if isinstance(modes, list) and len(modes) == 1 and isinstance(modes[0], str) and modes[0] in POOLING_BY_MODE:
        return POOLING_BY_MODE[modes[0]]
    raise files.refusal(f"its pooling is none of cls, mean and last; choose one with the key {section}pooling")


def saved_activation(
    files: CheckpointFiles, layout: SentenceLayout, config: PretrainedConfig
) -> Literal["sigmoid", "identity"]:
    """How sentence-transformers makes scores of a cross-encoder's logits; sigmoid where nothing says otherwise."""
    if layout.prompt:
        raise files.refusal(
            f"default_prompt_name in {MODEL_CONFIG} puts a text in front of its pairs, which te_trainer does not; set "
            "it to null if scores without it are wanted"
        )
    # version 6 has a file of its own for it; earlier ones wrote it into the model's configuration
    in_config = getattr(config, "sentence_transformers", None)
    path = (
        layout.model.get("activation_fn")
        or (in_config.get("activation_fn") if isinstance(in_config, dict) else None)
        or getattr(config, "sbert_ce_default_activation_function", None)
        or "Sigmoid"
    )
    for activation in ("sigmoid", "identity"):
        if str(path).rpartition(".")[2].lower() == activation:
            return activation
    raise files.refusal(
        f"its scores are the {path} of its logits; start from a cross-encoder whose scores are sigmoids or logits"
    )


def _read_modules(files: CheckpointFiles) -> dict[str, str]:
    modules: dict[str, str] = {}
    for module in files.read_json(MODULES, list) or []:
        try:
            kind, folder, arguments = str(module["type"]), str(module["path"]), module.get("kwargs")
        except (TypeError, KeyError):
            raise files.refusal(f"a module in {MODULES} has no type or no path; copy the file again") from None
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers."):
            raise files.refusal(f"its module {kind} is code of its own, which te_trainer does not run")
        if arguments:
            raise files.refusal(f"the kwargs of its module {name} in {MODULES} would be lost; remove them")
        modules[name] = folder
    if list(modules) != SUPPORTED_MODULES[: len(modules)]:
        raise files.refusal(
            f"its modules are {', '.join(modules)}, where Transformer, Pooling and at most a Normalize are expected; "
            "start from another checkpoint"
        )
    if "Normalize" in modules:
        file = f"{modules['Normalize']}/config.json"
        normalize = files.read_mapping(file, {})
        for key in ("module_input_name", "module_output_name"):
            if normalize.get(key, "sentence_embedding") != "sentence_embedding":
                raise files.refusal(f"{key} in {file} is not sentence_embedding; start from another checkpoint")
    return modules


def _read_transformer(files: CheckpointFiles, folder: str) -> dict[str, Any]:
    present = sorted((files.folder / folder).glob(ANY_TRANSFORMER_CONFIG))
    file = str(Path(folder, present[0].name if present else TRANSFORMER_CONFIG))
    content = files.read_mapping(file, TRANSFORMER_TYPES)
    for key, value in content.items():
        if TRANSFORMER_TYPES.get(key) is int and value < 1:
            raise files.refusal(f"{key} in {file} is {value}, where 1 or more is expected; correct the file")
        if key not in TRANSFORMER_TYPES and value != {} and not _is_kept(key, value):
            raise files.refusal(f"{key} in {file} would be lost; remove it, or start from another checkpoint")
    return content


def _is_kept(key: str, value: Any) -> bool:
    try:
        return key in IS_KEPT and IS_KEPT[key](value)
    except (AttributeError, LookupError, TypeError):  # the value has another type than sentence-transformers gives it
        return False
