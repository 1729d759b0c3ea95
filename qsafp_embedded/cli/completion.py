# SPDX-License-Identifier: Apache-2.0
"""``qsafp completion bash|zsh|fish``: written from the command line itself, so that it never lags behind."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .common import Commands, command, emit

__all__ = ["add", "words"]

FILES = ("--model", "--k0", "--out", "--file", "--checkpoint")
FOLDERS = ("--dir", "--state", "--store")

BASH = """# bash completion of qsafp: eval "$(qsafp completion bash)"
_qsafp() {
    local at="" word
    local -A known=(
%(table)s
    )
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do [[ -v known["${at:+$at }$word"] ]] && at+="${at:+ }$word"; done
    case "${COMP_WORDS[COMP_CWORD-1]}" in
        %(folders)s) COMPREPLY=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")); return ;;
        %(files)s) COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); return ;;
    esac
    COMPREPLY=($(compgen -W "${known[${at:-.}]}" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _qsafp qsafp
"""

ZSH = """#compdef qsafp
# zsh completion of qsafp: eval "$(qsafp completion zsh)"
_qsafp() {
    local at="" word
    local -A known=(
%(table)s
    )
    for word in ${words[2,CURRENT-1]}; do [[ -n ${known[${at:+$at }$word]} ]] && at+="${at:+ }$word"; done
    case "${words[CURRENT-1]}" in
        %(folders)s) _files -/; return ;;
        %(files)s) _files; return ;;
    esac
    compadd -- ${=known[${at:-.}]}
}
compdef _qsafp qsafp
"""

FISH = """# fish completion of qsafp: qsafp completion fish | source
function __qsafp_at
    set -l known %(fish)s
    set -l at .
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and continue
        set -l further (string join ' ' (string match -v -- . $at) $word)
        contains -- $further $known; and set at $further
    end
    echo $at
end
complete -c qsafp -f
%(lines)s
"""


def add(commands: Commands) -> None:
    """Add ``completion``."""
    p = command(
        commands, "completion", _run, "print a completion script", 'eval "$(qsafp completion bash)"\nqsafp completion fish | source'
    )
    p.add_argument("shell", choices=("bash", "fish", "zsh"), help="for which shell")


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


def _fish(table: dict[str, list[str]]) -> Iterator[str]:
    for at, what in table.items():
        yield f"complete -c qsafp -n 'test (__qsafp_at) = \"{at}\"' -a '{' '.join(what)}'"
    for option in (*FILES, *FOLDERS):
        only = "__fish_complete_directories" if option in FOLDERS else "__fish_complete_path"
        yield f"complete -c qsafp -l {option[2:]} -r -a '({only})'"


def _run(args: argparse.Namespace) -> int:
    from . import parser

    table = words(parser())
    script = {"bash": BASH, "zsh": ZSH, "fish": FISH}[args.shell] % {
        "table": "\n".join(f'        "{at}" "{" ".join(what)}"' for at, what in table.items()),
        "fish": " ".join(f"'{at}'" for at in table),
        "lines": "\n".join(_fish(table)),
        "files": "|".join(FILES),
        "folders": "|".join(FOLDERS),
    }
    emit(args, {"shell": args.shell, "script": script}, script)
    return 0
