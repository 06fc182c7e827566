"""Markup: what is not markup already is escaped, once."""

from dpo_wrap.report.markup import Markup, joined, tag


def test_text_and_attributes_are_escaped_and_markup_is_not():
    assert tag("p", "1 < 2 & 'x'") == "<p>1 &lt; 2 &amp; &#x27;x&#x27;</p>"
    assert tag("p", tag("b", "<i>")) == "<p><b>&lt;i&gt;</b></p>"
    assert tag("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'
    assert joined("<", Markup("<br>"), 3) == "&lt;<br>3"


def test_names_of_attributes_may_hold_what_names_in_python_may_not():
    assert tag("text", x=1, class_="a", text_anchor="end") == (
        '<text x="1" class="a" text-anchor="end"></text>'
    )


def test_what_no_file_or_page_can_hold_is_replaced():
    assert tag("p", "a\x00b\x1b[31m\ud800\n\té") == "<p>a\ufffdb\ufffd[31m\ufffd\n\té</p>"
