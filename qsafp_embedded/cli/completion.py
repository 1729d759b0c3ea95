# SPDX-License-Identifier: Apache-2.0
"""``qsafp completion bash``: written from the command line itself, so that it never lags behind."""

from __future__ import annotations

import argparse

from .common import Commands, command, emit

__all__ = ["add", "words"]

HEAD = """# bash completion of qsafp: eval "$(qsafp completion bash)"
_qsafp() {
    local path="" word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do [[ $word == -* ]] || path+="${path:+ }$word"; done
    local -A known=(
"""
TAIL = """    )
    local prev="${COMP_WORDS[COMP_CWORD-1]}"
    case "$prev" in
        --dir) COMPREPLY=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")); return ;;
        --model|--k0|--out) COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); return ;;
    esac
    while [[ -n $path && -z ${known[$path]+x} ]]; do [[ $path == *" "* ]] && path="${path% *}" || path=""; done
    COMPREPLY=($(compgen -W "${known[${path:-.}]}" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _qsafp qsafp
"""


def add(commands: Commands) -> None:
    """Add ``completion``."""
    p = command(commands, "completion", _run, "print a completion script")
    p.add_argument("shell", choices=("bash",))


def words(parser: argparse.ArgumentParser, path: str = "") -> dict[str, list[str]]:
    """Return what may follow each command path; ``.`` is the top."""
    out: dict[str, list[str]] = {path or ".": []}
    for action in parser._actions:
        out[path or "."] += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                out[path or "."].append(name)
                out |= words(child, f"{path} {name}".strip())
        elif action.choices and not action.option_strings:
            out[path or "."] += [str(c) for c in action.choices]
    return out


def _run(args: argparse.Namespace) -> int:
    from . import parser

    table = words(parser())
    script = HEAD + "".join(f'        ["{path}"]="{" ".join(what)}"\n' for path, what in table.items()) + TAIL
    emit(args, {"shell": args.shell, "script": script}, script)
    return 0
