"""Shell completions: each shell completes the commands and options of the installed program."""

from __future__ import annotations

import pytest

from tests.boot.installed import PREFIX, Host, need

BASH = f"""
source {PREFIX}/share/bash-completion/completions/vpntun
COMP_WORDS=(vpntun "$TYPED") COMP_CWORD=1
_vpntun_completion vpntun
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# Call the function that zsh has found for vpntun by itself, and print the words that it would give to the line editor.
ZSH = """
autoload -U compinit && compinit -u -D
_describe() { print -r -- ${completions_with_descriptions%%:*} }
words=(vpntun $TYPED) CURRENT=2
$_comps[vpntun]
"""
FISH = "complete --do-complete 'vpntun '$TYPED"


WORDS = (("genk", "genkey"), ("res", "reset"), ("--log-fo", "--log-format"))


@pytest.mark.netns
@pytest.mark.parametrize("shell", [("bash", "--norc", "-c", BASH), ("fish", "-c", FISH), ("zsh", "-f", "-c", ZSH)])
def test_words_are_completed(a: Host, shell: tuple[str, ...]) -> None:
    need(shell[0])
    for typed, full in WORDS:
        done = a.run("env", f"TYPED={typed}", f"HOME={a.own}", "TERM=dumb", *shell)
        assert done.stdout.split()[:1] == [full], f"{shell}\n{done.stdout}{done.stderr}"
