"""Lines of text end where those of files do, and nowhere else."""

from nuwa_lip.text_files import lines_of


def test_lines_are_cut_at_line_breaks_only() -> None:
    assert lines_of("a\u2028b\x85c\x0bd\x0c\x1c\t\n\n \n e") == ["a\u2028b\x85c\x0bd\x0c\x1c\t", " e"]
    assert lines_of("") == []
