"""Command `run`, as far as it gets without a namespace; tests/netns/test_run.py has the rest."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from vpntun.cli.command import vpntun


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        ("", "which tunnel?"),
        ("-- true", "which tunnel?"),
        ("office", "which program?"),
        ("-c host", "which program?"),
        ("-c host --", "which program?"),
        ("office curl -s", "A program and its options follow --"),
        ("office --exec", "(Did you mean one of: '--expose', '--peer'?)"),
        ("office curl", "put -- before the program and its options: vpntun run office -- curl"),
        ("office curl -v -- true", "put -- before the program and its options: vpntun run office -- curl"),
        (
            "-c host curl -- true",
            "-c HOST takes the place of a file: leave out 'curl' or, if it is the program, put -- before",
        ),
        ("-c host --expose :8080 10.9.0.7:80 -- true", "put the whole forward into quotes, as in --expose ':8080 10"),
        ("office --expose :8080 10.9.0.7:80 -- true", "put the whole forward into quotes"),
        ("office -k key -- true", "--key cannot be combined with a file"),
        ("office --route 10.0.0.0/8 -- true", "--route cannot be combined with a file"),
        ("-c host --peer x -- true", "--peer requires --private-key"),
        ("-c host --pair -- true", "No such option"),
        ("office --daemon -- true", "No such option"),
        ("office --wait soon -- true", "'soon' is not a valid"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error_that_says_what_to_do(arguments: str, explanation: str) -> None:
    refused = CliRunner().invoke(vpntun, ["run", *arguments.split()])
    assert refused.exit_code == 2
    assert explanation in refused.output
