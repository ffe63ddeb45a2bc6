"""What commands print: text that came over the network stays text, and is not broken into pieces."""

import json

import pytest

from node.cli.output import complain, print_json, print_table, print_text, progress

LONG = "/data/" + "a" * 200 + "/quality report.dcm"
HOSTILE = "[bold red]x[/bold red] :warning: \x1b[2J\x1b]0;owned\x07 \x9b31m \x00 \x7f end"


@pytest.mark.parametrize("speak", [print_text, progress, complain])
def test_a_long_line_is_one_line(speak: object, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal wraps by itself; a path that is broken by a program cannot be copied."""
    assert callable(speak)
    speak(LONG)
    captured = capsys.readouterr()
    assert LONG in captured.out + captured.err


@pytest.mark.parametrize("speak", [print_text, progress, complain, lambda text: print_table("t", ("c",), [(text,)])])
def test_a_header_cannot_command_the_terminal(speak: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(speak)
    speak(HOSTILE)
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "[bold red]x[/bold red] :warning:" in printed
    assert " end" in printed
    assert not [c for c in printed if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]


def test_letters_of_every_script_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("Müller^Jörg Yamada^Tarou=山田^太郎=やまだ^たろう Люкceмбypг قباني")
    assert "Müller^Jörg Yamada^Tarou=山田^太郎=やまだ^たろう Люкceмбypг قباني" in capsys.readouterr().out


def test_json_keeps_what_text_must_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"series_description": HOSTILE})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"series_description": HOSTILE}
    assert "\x1b" not in printed
