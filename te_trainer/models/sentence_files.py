"""What sentence-transformers writes beside a model: read, refused where it would be lost, and written again."""

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
    """What the files of sentence-transformers say; keys whose value is null are left out.

    Args:
        model: Content of `config_sentence_transformers.json`.
        transformer: Content of `sentence_bert_config.json`, under any of its names.
        pooling: Content of the module Pooling's `config.json`.
        modules: Folders of the modules by their kinds, in their order; empty where there is no `modules.json`.
    """

    model: dict[str, Any] = field(default_factory=dict)
    transformer: dict[str, Any] = field(default_factory=dict)
    pooling: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)

    @property
    def prompts(self) -> dict[str, str]:
        """Texts by their names."""
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
        """Whether texts are lower-cased before they are tokenised."""
        return bool(self.transformer.get("do_lower_case"))

    def write(self, folder: Path, *, pooling: Pooling, max_length: int, prompt: str, hidden_size: int) -> None:
        """Write the files in the layout that sentence-transformers has read since version 2.

        Args:
            folder: The model's folder.
            pooling: How sentence vectors are made.
            max_length: Tokens of a sentence.
            prompt: The text in front of every sentence, if it is another than what was read.
            hidden_size: Size of a vector.
        """
        prompts, default = self.prompts, self.model.get("default_prompt_name")
        if prompt != self.prompt:
            default = "default" if prompt else None
            prompts |= {"default": prompt} if prompt else {}
        modules = ["Transformer", "Pooling", *(["Normalize"] if "Normalize" in self.modules else [])]
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
                **{key: self.transformer[key] for key in KEPT_KEYS if key in self.transformer},
            },
            MODEL_CONFIG: {
                "similarity_fn_name": self.model.get("similarity_fn_name", "cosine"),
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
        if "Normalize" in modules:
            files["2_Normalize/config.json"] = {"module_input_name": "sentence_embedding"}
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_layout(files: CheckpointFiles) -> SentenceLayout:
    """Read the files of a checkpoint's folder.

    Raises:
        InputError: A file is broken, holds a value of another type, or says what te_trainer would lose.
    """
    modules = _read_modules(files)
    model = files.read_mapping(MODEL_CONFIG, MODEL_KEYS)
    for key, text in model.get("prompts", {}).items():
        files.check_value(f"prompts of {MODEL_CONFIG}", key, text, str)
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
    """Refuse a bi-encoder whose vectors te_trainer would make or compare in another way.

    Raises:
        InputError: Names the key.
    """
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
    """The pooling that the files name; None where they name none.

    Args:
        files: The checkpoint's folder.
        layout: What its files say.
        section: Of the configuration, whose key `pooling` would choose another one; ends with a dot.

    Raises:
        InputError: They name another than `cls`, `mean` and `last`, or several.
    """
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
    """How sentence-transformers makes scores of a cross-encoder's logits; sigmoid where nothing says otherwise.

    Raises:
        InputError: In another way than those two, or of other texts than the pair alone.
    """
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
    activation = str(path).rpartition(".")[2].lower()
    if activation == "sigmoid":
        return "sigmoid"
    if activation == "identity":
        return "identity"
    raise files.refusal(
        f"its scores are the {path} of its logits; start from a cross-encoder whose scores are sigmoids or logits"
    )


def _read_modules(files: CheckpointFiles) -> dict[str, str]:
    modules: dict[str, str] = {}
    kinds: list[str] = []
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
        kinds.append(name)
        modules[name] = path
    if kinds != SUPPORTED_MODULES[: len(kinds)]:
        raise files.refusal(
            f"its modules are {', '.join(kinds)}, where Transformer, Pooling and at most a Normalize are expected, in "
            "this order; start from another checkpoint"
        )
    if "Normalize" in modules:
        file = f"{modules['Normalize']}/config.json"
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
