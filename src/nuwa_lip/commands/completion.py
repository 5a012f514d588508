"""`nuwa-lip completion`: what completes commands, options and file names in a shell.

The commands stand in what is written. Options are read from a command's help when they are first asked for, once in a
shell: they need what the command imports, and are those of the installed version.
"""

from typing import Annotated, Literal

import tyro

from nuwa_lip.cli import COMMANDS

OPTIONS = r"grep -oE -- '(^|[ ,│])--[a-z][a-z0-9.-]*' | tr -d ' ,│' | sort -u"
BASH = r"""# nuwa-lip, completed by bash: nuwa-lip completion bash > ~/.local/share/bash-completion/completions/nuwa-lip
typeset -gA _nuwa_lip_options
_nuwa_lip() {
    local current=${COMP_WORDS[COMP_CWORD]} name=${COMP_WORDS[1]} second='' all IFS=$' \t\n'
    case "$name" in
%(cases)s
    esac
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W '%(first)s --help --version' -- "$current"))
    elif [[ $current == -* ]]; then
        all=${_nuwa_lip_options[$name-$second]-}
        if [[ -z $all ]]; then
            all=$("${COMP_WORDS[0]}" "$name" ${second:+"$second"} --help 2>/dev/null | %(options)s)
            _nuwa_lip_options[$name-$second]=$all
        fi
        COMPREPLY=($(compgen -W "$all --threads --quiet --config" -- "$current"))
    else
        compopt -o filenames 2>/dev/null
        IFS=$'\n'
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}
complete -F _nuwa_lip nuwa-lip
"""
BASH_CASE = r"""        %(group)s)
            if ((COMP_CWORD == 2)) && [[ $current != -* ]]; then
                COMPREPLY=($(compgen -W '%(words)s' -- "$current"))
                return
            fi
            [[ " %(words)s " == *" ${COMP_WORDS[2]} "* ]] && second=${COMP_WORDS[2]}
            ;;"""
ZSH = r"""#compdef nuwa-lip
# nuwa-lip, completed by zsh: nuwa-lip completion zsh > a folder of $fpath/_nuwa-lip
autoload -U +X bashcompinit && bashcompinit
"""
ZSH_END = "[[ $funcstack[1] == _nuwa-lip ]] && _bash_complete -F _nuwa_lip  # the first Tab has loaded this file\n"
FISH = r"""# nuwa-lip, completed by fish: nuwa-lip completion fish > ~/.config/fish/completions/nuwa-lip.fish
function __nuwa_lip_options
    set -l words (commandline -opc)
    set -l name $words[2]
    if set -q words[3]; and not string match -q -- '-*' $words[3]; and contains -- "$name $words[3]" %(pairs)s
        set name $name $words[3]
    end
    set -l kept __nuwa_lip_(string join _ $name | string replace -ra '[^a-z0-9_]' _)
    if not set -q $kept
        set -g $kept (command $words[1] $name --help 2>/dev/null | %(options)s)
    end
    printf '%%s\n' $$kept --threads --quiet --config
end
complete -c nuwa-lip -n '__fish_is_nth_token 1' -f -a '%(first)s'
%(groups)s
complete -c nuwa-lip -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__nuwa_lip_options)'
"""


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]) -> None:
    """Write what completes commands, options and file names in a shell to standard output.

    Example: nuwa-lip completion bash > ~/.local/share/bash-completion/completions/nuwa-lip

    Example: nuwa-lip completion zsh > ~/.zfunc/_nuwa-lip

    Example: nuwa-lip completion fish > ~/.config/fish/completions/nuwa-lip.fish

    Args:
        shell: The shell; for zsh the folder must be in fpath before compinit runs.
    """
    print(script(shell), end="")


def script(shell: str) -> str:
    """Write the completion of a shell: "bash", "zsh" or "fish"."""
    first = " ".join(sorted({name.split()[0] for name in COMMANDS}))
    groups: dict[str, list[str]] = {}
    for name in COMMANDS:
        group, _, word = name.partition(" ")
        if word and not word.startswith("-"):
            groups.setdefault(group, []).append(word)
    if shell == "fish":
        pairs = " ".join(f"'{group} {word}'" for group, words in groups.items() for word in words)
        lines = "\n".join(
            f"complete -c nuwa-lip -n '__fish_is_nth_token 2; and __fish_seen_subcommand_from {group}' -f "
            f"-a '{' '.join(words)}'"
            for group, words in groups.items()
        )
        return FISH % {"first": first, "groups": lines, "pairs": pairs, "options": OPTIONS}
    cases = "\n".join(BASH_CASE % {"group": group, "words": " ".join(words)} for group, words in groups.items())
    bash = BASH % {"first": first, "cases": cases, "options": OPTIONS}
    return ZSH + bash + ZSH_END if shell == "zsh" else bash
