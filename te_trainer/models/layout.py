"""What sentence-transformers writes beside a model: read, refused by name where it would be lost, and written again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import PretrainedConfig

from te_trainer.config.schema import Pooling
from te_trainer.errors import InputError
from te_trainer.models.json_files import read_json, value_of
from te_trainer.models.locate import locate

MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
# In the order in which sentence-transformers looks for them.
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
SUPPORTED_MODULES = ("Transformer", "Pooling", "Normalize")
KEPT_TRANSFORMER_KEYS = ("query_length", "document_length", "unpad_inputs")  # they change no score of `encode`
LOADING_KEYS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
# Of these keys' content, what changes no score, or is set by te_trainer itself.
HARMLESS_ARGUMENTS = {
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "padding_side",
    "trust_remote_code",
    "use_safetensors",
}
POOLING_BY_MODE: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
TASKS = {"feature-extraction", "sequence-classification"}


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


def model_folder(name: str, weights: bool = False) -> str:
    """The folder of a model's configuration, tokenizer and weights: of its module Transformer, if it names one.

    Args:
        weights: whether the weights of a Hub model are wanted, too.

    Raises:
        InputError: `modules.json` cannot be used.
    """
    root = locate(name, weights)
    path = next((path for kind, path in _modules(name) if kind == "Transformer"), "")
    return str(Path(root, path)) if path else root


def has_modules(name: str) -> bool:
    """Whether sentence-transformers has saved a checkpoint, which says how its texts are read.

    Raises:
        InputError: `modules.json` cannot be used.
    """
    return bool(_modules(name))


def read_layout(name: str) -> SentenceLayout:
    """What the files of sentence-transformers beside a bi-encoder say; the defaults where there are none.

    Raises:
        InputError: a file is broken, or says what te_trainer does not do.
    """
    modules = _modules(name)
    transformer = _transformer_config(name)
    model = _model_config(name)
    normalize = any(kind == "Normalize" for kind, _ in modules)
    similarity = value_of(name, MODEL_CONFIG, model, "similarity_fn_name", str) or "cosine"
    if similarity != "cosine" and not (similarity == "dot" and normalize):
        raise InputError(
            f"model {name}: similarity_fn_name in {MODEL_CONFIG} is '{similarity}', but te_trainer compares vectors by "
            "their cosine; set it to cosine there if cosines are wanted"
        )
    if value_of(name, MODEL_CONFIG, model, "truncate_dim", int) is not None:
        raise InputError(
            f"model {name}: truncate_dim in {MODEL_CONFIG} shortens vectors, which te_trainer does not; remove the key "
            "if whole vectors are wanted"
        )
    if model.get("model_type", "SentenceTransformer") not in {"SentenceTransformer", "CrossEncoder"}:
        raise InputError(
            f"model {name}: a {model['model_type']!s:.40} of sentence-transformers; start from a SentenceTransformer"
        )
    prompts, default = _prompts(name, model)
    pooling = _pooling_config(name) or {}
    file = f"{_path_of(name, 'Pooling')}/config.json"
    return SentenceLayout(
        prompts=prompts,
        default_prompt_name=default,
        include_prompt=value_of(name, file, pooling, "include_prompt", bool) is not False,
        normalize=normalize,
        similarity=similarity,
        lower_case=bool(transformer.get("do_lower_case")),
        transformer={key: transformer[key] for key in KEPT_TRANSFORMER_KEYS if transformer.get(key) is not None},
    )


def saved_pooling(name: str, key: str = "pooling") -> Pooling | None:
    """The pooling that a sentence-transformers folder or repository names; None where it names none.

    Args:
        key: of the configuration, that would choose another one.

    Raises:
        InputError: it pools in a way of its own.
    """
    pooling = _pooling_config(name)
    if pooling is None:
        return None
    # sentence-transformers 6 writes one name or several; earlier versions a flag for each kind.
    modes = pooling.get("pooling_mode") or [
        mode.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for mode, flag in pooling.items()
        if mode.startswith("pooling_mode_") and flag
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if isinstance(modes, list) and len(modes) == 1 and isinstance(modes[0], str) and modes[0] in POOLING_BY_MODE:
        return POOLING_BY_MODE[modes[0]]
    raise InputError(f"model {name}: its pooling is none of cls, mean and last; choose one with the key {key}")


def saved_prompt(name: str) -> str:
    """The text that a sentence-transformers folder or repository puts in front of every sentence by default."""
    prompts, default = _prompts(name, _model_config(name))
    return prompts.get(default or "", "")


def saved_lower_case(name: str) -> bool:
    """Whether sentence-transformers would lower-case texts before it tokenises them."""
    return bool(_transformer_config(name).get("do_lower_case"))


def saved_max_seq_length(name: str) -> int | None:
    """The number of tokens that sentence-transformers was told to read; None where it was told none."""
    return _transformer_config(name).get("max_seq_length")


def saved_activation(name: str, config: PretrainedConfig) -> Literal["sigmoid", "identity"]:
    """How sentence-transformers would make scores of a cross-encoder's logits; sigmoid where nothing says otherwise.

    Raises:
        InputError: in another way than those two, or of other texts than the pair alone.
    """
    model = _model_config(name)
    if saved_prompt(name):
        raise InputError(
            f"model {name}: default_prompt_name in {MODEL_CONFIG} puts a text in front of its pairs, which te_trainer "
            "does not; set it to null if scores without it are wanted"
        )
    # version 6 has a file of its own for it; earlier ones wrote it into the model's configuration
    path = (
        model.get("activation_fn")
        or _activation(getattr(config, "sentence_transformers", None))
        or getattr(config, "sbert_ce_default_activation_function", None)
        or "Sigmoid"
    )
    activation = str(path).rpartition(".")[2].lower()
    if activation == "sigmoid":
        return "sigmoid"
    if activation == "identity":
        return "identity"
    raise InputError(
        f"model {name}: its scores are the {path} of its logits; start from a cross-encoder whose scores are sigmoids "
        "or logits"
    )


def _activation(content: Any) -> Any:
    return content.get("activation_fn") if isinstance(content, dict) else None


def _modules(name: str) -> list[tuple[str, str]]:
    """The modules' kinds and folders, in their order; empty where there is no list of modules."""
    found = []
    for module in read_json(name, locate(name, weights=False), MODULES, list) or []:
        kind, path = (module.get(key) if isinstance(module, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(path, str):
            raise InputError(f"model {name}: a module in {MODULES} has no type or no path; copy the file again")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise InputError(f"model {name}: the path {path} in {MODULES} leaves the model's folder; correct the file")
        package, _, last = kind.rpartition(".")
        if package.partition(".")[0] != "sentence_transformers":
            raise InputError(f"model {name}: its module {kind} is code of its own, which te_trainer does not run")
        if last not in SUPPORTED_MODULES:
            raise InputError(
                f"model {name}: its module {last} would be lost; start from a checkpoint of Transformer and Pooling "
                "only"
            )
        if module.get("kwargs"):
            raise InputError(f"model {name}: the kwargs of its module {last} in {MODULES} would be lost; remove them")
        found.append((last, path))
    kinds = [kind for kind, _ in found]
    if kinds not in ([], *(list(SUPPORTED_MODULES[:count]) for count in (1, 2, 3))):
        raise InputError(
            f"model {name}: its modules are {', '.join(kinds)}, where Transformer, Pooling and at most a Normalize are "
            "expected, in this order; start from another checkpoint"
        )
    for kind, path in found:
        file = f"{path}/config.json"
        normalized = read_json(name, locate(name, weights=False), file, dict) or {} if kind == "Normalize" else {}
        for key in ("module_input_name", "module_output_name"):
            if normalized.get(key) not in (None, "sentence_embedding"):
                raise InputError(
                    f"model {name}: {key} in {file} is not sentence_embedding; start from another checkpoint"
                )
    return found


def _path_of(name: str, wanted: str) -> str | None:
    return next((path for kind, path in _modules(name) if kind == wanted), None)


def _pooling_config(name: str) -> dict[str, Any] | None:
    path = _path_of(name, "Pooling")
    if path is None:
        return None
    config: dict[str, Any] | None = read_json(name, locate(name, weights=False), f"{path}/config.json", dict)
    if config is None:
        raise InputError(f"model {name}: {MODULES} names a pooling, but {path}/config.json is missing; copy it again")
    return config


def _model_config(name: str) -> dict[str, Any]:
    return read_json(name, locate(name, weights=False), MODEL_CONFIG, dict) or {}


def _prompts(name: str, model: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    prompts = {
        key: text
        for key, text in (value_of(name, MODEL_CONFIG, model, "prompts", dict) or {}).items()
        if text is not None
    }
    for key in prompts:
        value_of(name, f"prompts of {MODEL_CONFIG}", prompts, key, str)
    default = value_of(name, MODEL_CONFIG, model, "default_prompt_name", str)
    if default is not None and default not in prompts:
        raise InputError(
            f"model {name}: default_prompt_name in {MODEL_CONFIG} is '{default}', which is none of its prompts; "
            "correct the file"
        )
    return prompts, default


def _transformer_config(name: str) -> dict[str, Any]:
    """The content of `sentence_bert_config.json`, or of a file of another of its names, where it can be kept."""
    folder = model_folder(name)
    file = next((file for file in TRANSFORMER_CONFIGS if Path(folder, file).is_file()), TRANSFORMER_CONFIGS[0])
    content: dict[str, Any] = read_json(name, folder, file, dict) or {}
    for key, kind in {
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
    }.items():
        value = value_of(name, file, content, key, kind)
        if kind is int and value is not None and value < 1:
            raise InputError(f"model {name}: {key} in {file} is {value}, where 1 or more is expected; correct the file")
    lost = [key for key, value in content.items() if value not in (None, {}) and _is_lost(key, value)]
    if lost:
        raise InputError(
            f"model {name}: {lost[0]} in {file} would be lost; remove it, or start from another checkpoint"
        )
    return content


def _is_lost(key: str, value: Any) -> bool:
    """Whether te_trainer does otherwise than a key of `sentence_bert_config.json` says."""
    if key in {"max_seq_length", "do_lower_case", *KEPT_TRANSFORMER_KEYS}:
        return False
    if key == "transformer_task":
        return value not in TASKS
    if key == "module_output_name":
        return value not in {"token_embeddings", "scores"}
    if key == "modality_config":
        text = value.get("text")
        expected = {"method": "forward"}
        return not isinstance(text, dict) or any(text.get(part) != wanted for part, wanted in expected.items())
    if key == "processing_kwargs":
        return any(value.get(part) for part in ("common", "text"))
    if key in LOADING_KEYS:
        return not set(value) <= HARMLESS_ARGUMENTS
    return True
