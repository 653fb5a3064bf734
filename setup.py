"""What pyproject.toml has no word for: the folder `workflows` goes into the wheel, as `qlib_ext/workflows`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithWorkflows(build_py):
    """Copies the workflows beside the modules; an editable install finds them where they lie."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "qlib_ext", "workflows")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree("workflows", target)


setup(cmdclass={"build_py": BuildWithWorkflows})
