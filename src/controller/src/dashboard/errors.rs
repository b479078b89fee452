//! `docs/errors.md` as a page, for whoever stands in front of a machine and follows the QR code on its console. It is
//! the file of this build, has no secrets and needs no login.
//!
//! Only the Markdown that the file uses is known: headings, paragraphs, tables, code, emphasis, links, anchors.

use std::sync::LazyLock;

use maud::{Markup, PreEscaped, html};

use super::page::frame;

const TEXT: &str = include_str!("../../../../docs/errors.md");

static PAGE: LazyLock<String> = LazyLock::new(|| frame("errors", &blocks(TEXT)).into_string());

pub(super) fn page() -> String {
    PAGE.clone()
}

/// Blocks are divided by empty lines.
fn blocks(text: &str) -> Markup {
    html! {
        @for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
            @if let Some(title) = block.strip_prefix("## ") { h2 { (inline(title)) } }
            @else if let Some(title) = block.strip_prefix("# ") { h1 { (inline(title)) } }
            @else if block.starts_with('|') { (table(block)) }
            @else { p { (inline(block)) } }
        }
    }
}

fn table(block: &str) -> Markup {
    let mut lines = block.lines();
    let head = lines.next().unwrap_or_default();
    html! {
        table {
            thead { tr { @for cell in cells(head) { th { (inline(cell)) } } } }
            tbody {
                @for line in lines.filter(|line| !line.starts_with("|-")) {
                    // The row is what a link leads to, so that it can be marked as a whole.
                    @let (anchor, line) = anchored(line);
                    tr id=[anchor] { @for cell in cells(line) { td { (inline(cell)) } } }
                }
            }
        }
    }
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.trim_matches('|').split('|').map(str::trim)
}

/// `| <a id="no-dhcp"></a>...` -> `no-dhcp`, and the row without it.
fn anchored(line: &str) -> (Option<&str>, &str) {
    let found = line.strip_prefix("| <a id=\"").and_then(|rest| rest.split_once("\"></a>"));
    found.map_or((None, line), |(anchor, rest)| (Some(anchor), rest))
}

/// What comes first of code, link and emphasis is taken, and what is left is looked through again.
fn inline(text: &str) -> Markup {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '[', '*']) {
        let (before, from) = rest.split_at(at);
        out.push_str(&html! { (before) }.into_string());
        let (marked, after) = marked(from);
        out.push_str(&marked.into_string());
        rest = after;
    }
    out.push_str(&html! { (rest) }.into_string());
    PreEscaped(out)
}

/// What stands at the start of `text`, which begins with a mark, and what follows it.
fn marked(text: &str) -> (Markup, &str) {
    let (mark, body) = text.split_at(1);
    if mark == "[" {
        if let Some((label, (target, after))) = body.split_once("](").and_then(|(l, r)| Some((l, r.split_once(')')?))) {
            // The other documents are not served.
            let is_here = target.starts_with('#') || target.starts_with("https://");
            let label = inline(label);
            return (html! { @if is_here { a href=(target) { (label) } } @else { (label) } }, after);
        }
    } else if let Some((inside, after)) = body.split_once(mark) {
        let shown = if mark == "`" {
            html! { code { (inside) } }
        } else {
            html! { em { (inline(inside)) } }
        };
        return (shown, after);
    }
    (html! { (mark) }, body)
}

#[cfg(test)]
mod tests {
    use speediso_model::fault::FaultCode;

    use super::*;

    #[test]
    fn every_code_is_a_place_on_the_page() {
        let page = page();
        for code in FaultCode::ALL {
            assert_eq!(page.matches(&format!("<tr id=\"{code}\">")).count(), 1, "{code}");
            assert!(page.contains(&format!("<code>{code}</code>")), "{code}");
        }
        // Nothing of the Markdown is left over, and nothing leads where nothing is.
        for left_over in ["](", "|", "`", "## ", "**", "&lt;a ", ".md\""] {
            assert!(!page.contains(left_over), "{left_over:?} is on the page");
        }
    }

    #[test]
    fn text_is_text_whatever_is_in_it() {
        let shown = |text: &str| inline(text).into_string();
        assert_eq!(shown("a `b<c>` & *d*"), "a <code>b&lt;c&gt;</code> &amp; <em>d</em>");
        assert_eq!(shown("[`x`](other.md) [y](#z)"), "<code>x</code> <a href=\"#z\">y</a>");
        assert_eq!(shown("[open ` * "), "[open ` * ");
        let row = table("| a | b |\n|---|---|\n| <a id=\"q\"></a>1 | 2 |").into_string();
        assert!(row.contains("<tr id=\"q\"><td>1</td><td>2</td></tr>"), "{row}");
    }
}
