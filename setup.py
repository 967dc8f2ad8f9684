"""Where the package's folders are; `pyproject.toml` holds everything else."""

from setuptools import find_packages, setup

# What reaches users of the wheel from the top of the repository: package, folder.
RESOURCES = {"te_trainer.recipes": "recipes", "te_trainer.accelerate_configs": "accelerate_configs"}

setup(packages=[*find_packages(include=["te_trainer", "te_trainer.*"]), *RESOURCES], package_dir=RESOURCES)
