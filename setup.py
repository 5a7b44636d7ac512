"""Packaging of explaind_tf."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'VERSION: Final = "(.+)"', (ROOT / "explaind_tf/constants.py").read_text())[1]

EXPERIMENTS = ["scikit-learn>=1.5", "matplotlib>=3.9"]
TENSORBOARD = ["tensorboard>=2.20"]
S3 = ["s3fs>=2025.2"]
DISTRIBUTED = ["distributed>=2025.1"]
EXPLORE = [
    "dash>=4",
    # Pictures of inputs, before TensorFlow is imported.
    "pillow>=11",
    # Where answers about runs at URLs are kept.
    "platformdirs>=4",
]
TEST = [
    "pytest>=8",
    # Most of a test is tracing, which takes one core.
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "ruff>=0.8",
    "mypy>=1.13",
    # Holds the rooms to who may import whom, see pyproject.toml.
    "import-linter>=2.4",
    # Runs ruff, mypy and lint-imports before each commit and in .ci/run.
    "pre-commit>=4",
    # .ci/run also tests the package as it is installed from a wheel.
    "build>=1.2",
    *EXPERIMENTS,
    # Reads docstrings as the documentation does.
    "griffelib>=2",
    # Watches over the processes that try hostile runs.
    "psutil>=5.9",
    # Drives Debian's Chromium, which opens the report.
    "playwright>=1.49",
    *TENSORBOARD,
    # An object store on the machine of the tests.
    *S3,
    *DISTRIBUTED,
    *EXPLORE,
    # Looks for what people with disabilities could not use.
    "axe-playwright-python>=0.1.4",
    "moto[s3]>=5.1",
    "flask>=3",
    "flask-cors>=5",
    # Its models, with random weights, are trained and accounted for.
    "keras-hub>=0.32",
]
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.6", "mkdocstrings[python]>=1", "griffelib>=2"]

setup(
    name="explaind_tf",
    version=VERSION,
    description="Exact attribution of Keras predictions to training samples, weights, layers and training steps",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["explaind_tf", "explaind_tf.*"]),
    package_data={"explaind_tf": ["py.typed", "runs/storage/messages.binpb"]},
    python_requires=">=3.11",
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.12",
        "numpy>=2.0",
        # Keras brings it, too; files of weights are looked into before they are given to Keras.
        "h5py>=3.11",
        "tensorflow-datasets>=4.9.7",
        # tensorflow-datasets 4.9.10 imports it while preparing a dataset and does not declare it.
        "importlib_resources>=6",
        "xarray>=2024.10",
        # Since 3.1.3 files are replaced by renaming: a process that is killed leaves no half of one.
        "zarr>=3.1.3",
        "google-crc32c>=1.5",
        # TensorFlow brings these three, too. Runs are opened without it, since its import takes seconds: its messages,
        # bfloat16, and methods of datasets that are added once xarray is imported.
        "protobuf>=6.31",
        "ml_dtypes>=0.5.1",
        "wrapt>=1.14",
        # Run directories at URLs, through fsspec.
        "universal-pathlib>=0.3.2",
        # Since 2024.10 objects can be made only where there are none.
        "fsspec>=2024.10",
        # Whether the process that holds a lock has ended.
        "psutil>=5.9",
        "pandas>=2.2",
        "rich>=13",
        "typer>=0.15",
        "plotly>=6",
        # The demo trains on real handwritten digits, which scikit-learn carries.
        "scikit-learn>=1.5",
        "scipy>=1.13",
    ],
    extras_require={
        "test": TEST,
        "docs": DOCS,
        "experiments": EXPERIMENTS,
        "tensorboard": TENSORBOARD,
        "s3": S3,
        "distributed": DISTRIBUTED,
        "explore": EXPLORE,
    },
    entry_points={"console_scripts": ["explaind-tf = explaind_tf.cli:app"]},
)
