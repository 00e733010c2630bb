from offmarl.reports.tables import markdown


def test_a_table_has_a_rule_and_numbers_to_the_right():
    assert markdown.table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | --- |\n| x | 1 |"
    assert markdown.table(["a", "b"], [], numbers=True) == "| a | b |\n| --- | ---: |"


def test_signs_of_markdown_and_html_are_escaped():
    assert markdown.escape("a|b *c* `d` <e> \\") == r"a\|b \*c\* \`d\` &lt;e&gt; " + "\\\\"


def test_a_command_in_a_note_stays_code():
    assert markdown.escape("a|b: `offmarl status` lists them.") == r"a\|b: `offmarl status` lists them."
