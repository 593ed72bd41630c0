"""Package layout: the stages at the root of the repository are installed below `clay_publish`."""

from setuptools import find_packages, setup

STAGES = ("producer", "catalog", "cards", "validate", "publish")

setup(
    packages=[
        *find_packages(include=["clay_publish", "clay_publish.*"]),
        *(f"clay_publish.{package}" for stage in STAGES for package in find_packages(include=[stage, f"{stage}.*"])),
    ],
    package_dir={"clay_publish": "clay_publish", **{f"clay_publish.{stage}": stage for stage in STAGES}},
)
