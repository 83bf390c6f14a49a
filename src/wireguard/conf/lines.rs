//! The file as lines: section, key, value, comments gone.

/// One line that says something.
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    /// `[Name]`, without the brackets.
    Section(&'a str),
    /// `Key = Value`, trimmed.
    Pair(&'a str, &'a str),
    /// Neither.
    Other,
}

pub(super) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(i, raw)| {
        let content = content(raw)?;
        Some(Line { number: i + 1, content })
    })
}

fn content(raw: &str) -> Option<Content<'_>> {
    let bare = raw.split('#').next().unwrap_or("").trim();
    if bare.is_empty() {
        return None;
    }
    if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(Content::Section(name.trim()));
    }
    let Some((key, value)) = bare.split_once('=') else {
        return Some(Content::Other);
    };
    let key = key.trim();
    if !is_hook(key) {
        return Some(Content::Pair(key, value.trim()));
    }
    // A shell line may hold `#` as part of a word.
    let whole = raw.split_once('=').map_or("", |(_, v)| v);
    Some(Content::Pair(key, whole.trim()))
}

fn is_hook(key: &str) -> bool {
    ["preup", "postup", "predown", "postdown"].iter().any(|hook| key.eq_ignore_ascii_case(hook))
}
