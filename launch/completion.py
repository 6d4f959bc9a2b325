"""Scripts that complete ``shardrec`` in a shell: verbs, keys, and the names that a key takes."""

from collections.abc import Sequence

from configs.errors import ConfigError
from configs.reference import Key, cluster_keys, run_keys, server_keys
from launch.help import VERBS

BASH = """# bash completion of shardrec, made by `shardrec completion bash`
_shardrec() {{
  local line=${{COMP_LINE:0:COMP_POINT}} verbs="{verbs}" keys="{keys}"
  local word=${{line##* }}
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "$verbs" -- "$word"))
  elif [[ $word == *=* ]]; then
    local names=
    case ${{word%%=*}} in
{cases}
    esac
    local value=${{word#*=}}
    [[ $names ]] && COMPREPLY=($(compgen -W "$names" -- "$value")) || COMPREPLY=($(compgen -f -- "$value"))
  else
    COMPREPLY=($(compgen -S = -W "$keys" -- "$word"))
    compopt -o nospace
  fi
}}
complete -F _shardrec shardrec
"""

ZSH = """#compdef shardrec
# zsh completion of shardrec, made by `shardrec completion zsh`
_shardrec() {{
  if (( CURRENT == 2 )); then
    compadd -- {verbs}
  elif [[ $PREFIX == *=* ]]; then
    local key=${{PREFIX%%=*}} names=()
    case $key in
{cases}
    esac
    compset -P '*='
    if (( $#names )); then compadd -- $names; else _files; fi
  else
    compadd -S = -- {keys}
  fi
}}
_shardrec "$@"
"""

FISH_HEAD = "# fish completion of shardrec, made by `shardrec completion fish`\n"


def completion_script(words: Sequence[str]) -> str:
    """The script for the shell that ``words`` name; raises :class:`ConfigError` for another."""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if len(words) != 1 or words[0] not in makers:
        raise ConfigError(f"completion needs the name of a shell: {', '.join(makers)}")
    return makers[words[0]]()


def _keys() -> dict[str, Key]:
    """By name; groups of keys that take no name and keys with a NAME in them are left to the user."""
    found = [*run_keys(), *cluster_keys(), *server_keys()]
    return {key.name: key for key in found if (key.takes or not key.is_group) and "NAME" not in key.name}


def _bash() -> str:
    cases = [f'      {key.name}) names="{" ".join(key.takes)}" ;;' for key in _keys().values() if key.takes]
    return BASH.format(verbs=" ".join(VERBS), keys=" ".join(_keys()), cases="\n".join(cases))


def _zsh() -> str:
    cases = [f"      {key.name}) names=({' '.join(key.takes)}) ;;" for key in _keys().values() if key.takes]
    return ZSH.format(verbs=" ".join(VERBS), keys=" ".join(_keys()), cases="\n".join(cases))


def _fish() -> str:
    lines = [
        f"complete -c shardrec -n __fish_use_subcommand -f -a {name} -d {_fish_quoted(verb.summary)}"
        for name, verb in VERBS.items()
    ]
    for key in _keys().values():
        values = " ".join(f"{key.name}={name}" for name in key.takes) or f"{key.name}="
        told = _fish_quoted(key.doc.replace("``", ""))
        lines.append(f"complete -c shardrec -n 'not __fish_use_subcommand' -a '{values}' -d {told}")
    return FISH_HEAD + "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
