"""At TAB each shell asks the installed program, and completes its commands and its options."""

from __future__ import annotations

import shutil

import pytest

from tests.boot.installed import PREFIX, Host

BASH = f"""
source {PREFIX}/share/bash-completion/completions/vpntun
COMP_WORDS=(vpntun "$TYPED") COMP_CWORD=1
_vpntun_completion vpntun
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# What is typed at a terminal that zsh itself provides, and what stands there afterwards.
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -U compinit; compinit -u -D; echo rea""dy'
zpty -r -m shell said '*ready*'
zpty -w -n shell "vpntun $TYPED"$'\\t'
zpty -r -m shell said "*vpntun $TYPED*[[:alnum:]] "
print -r -- ${${said##*vpntun }%% *}
"""
FISH = "complete --do-complete 'vpntun '$TYPED"


@pytest.fixture
def _shells() -> None:
    for shell in ("bash", "zsh", "fish"):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")


@pytest.mark.netns
@pytest.mark.usefixtures("_shells")
@pytest.mark.parametrize("typed", ["genk", "--priv"])
def test_a_word_is_completed(a: Host, typed: str) -> None:
    full = {"genk": "genkey", "--priv": "--private-key"}[typed]
    for command in (["bash", "--norc", "-c", BASH], ["fish", "-c", FISH], ["timeout", "20", "zsh", "-f", "-c", ZSH]):
        done = a.run("env", f"TYPED={typed}", f"HOME={a.own}", "TERM=dumb", *command)
        assert done.stdout.split()[:1] == [full], f"{command}\n{done.stdout}{done.stderr}"
