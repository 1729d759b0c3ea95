# SPDX-License-Identifier: Apache-2.0
"""Build qsafp_embedded._core from the binding, the core and the Linux port.

QSAFP_WERROR=1 (set by make) turns warnings in our own C into errors; a user's newer compiler must not stop an installation.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
BINDING = "qsafp_embedded/_core.pyx"
OURS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes", "-Wundef"]
WERROR = ["-Werror"] if os.environ.get("QSAFP_WERROR") == "1" else []


class BuildExt(build_ext):
    """Strict warnings for what we wrote, none of them for what Cython generated."""

    def build_extensions(self):
        """Compile each source with the flags of its origin."""
        plain = self.compiler._compile

        def compile_one(obj, src, ext, cc_args, extra_postargs, pp_opts):
            ours = Path(src).parts[0] in ("cext", "board_ports")
            plain(obj, src, ext, cc_args, [*extra_postargs, *(OURS + WERROR if ours else [])], pp_opts)

        self.compiler._compile = compile_one
        super().build_extensions()


class BuildPy(build_py):
    """Take the boards along: data that lies beside the C which drives them, and inside the installed package."""

    def boards(self):
        """Where each file of a board comes from and goes to."""
        to = Path(self.build_lib) / "qsafp_embedded" / "boards"
        return {str(p): str(to / p.parent.name / p.name) for p in Path("board_ports").glob("*/board.toml")}

    def run(self):
        """Copy them after the modules."""
        super().run()
        if not self.editable_mode:
            for source, to in self.boards().items():
                self.mkpath(str(Path(to).parent))
                self.copy_file(source, to, preserve_mode=False)

    def get_outputs(self, include_bytecode=True):
        """Name them too, or nothing installs them."""
        return [*super().get_outputs(include_bytecode), *([] if self.editable_mode else self.boards().values())]


def listed(folder, pattern):
    """Matching files, as sorted relative paths."""
    return sorted(str(p) for p in Path(folder).glob(pattern))


def extensions():
    """The one extension; none while the binding does not exist."""
    os.chdir(HERE)
    if not Path(BINDING).exists():
        return []
    from Cython.Build import cythonize

    folders = ["cext/include", "cext/src", "board_ports/linux"]
    core = Extension(
        "qsafp_embedded._core",
        [BINDING, *listed("cext/src", "*.c"), *listed("board_ports/linux", "*.c"), *listed("board_ports/simulated", "*.c")],
        include_dirs=[f for f in folders if Path(f).is_dir()],
        depends=[h for f in folders for h in listed(f, "*.h")],
        define_macros=[("_FILE_OFFSET_BITS", "64"), ("_TIME_BITS", "64")],  # of 32-bit processors: one off_t, and no end in 2038
        extra_compile_args=["-O2", "-std=c11", "-pthread", "-fvisibility=hidden"],
        extra_link_args=["-pthread", "-ldl"],
    )
    return cythonize([core], language_level=3, include_path=["."])


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
