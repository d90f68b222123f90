//! Numbers, times and tables as Docker prints them.

pub(crate) mod listing;
pub(crate) mod number;
mod table;
pub(crate) mod time;

use unicode_width::UnicodeWidthChar;

/// The first twelve hexadecimal digits of an ID, without the name of its algorithm.
pub(crate) fn truncate_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    &hex[..hex.floor_char_boundary(12)]
}

/// `text` cut to `width` columns, the last of them an ellipsis where something was cut.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    let columns = |c: char| c.width().unwrap_or(0);
    if text.chars().map(columns).sum::<usize>() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut out = String::new();
    for c in text.chars() {
        match left.checked_sub(columns(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// `text` without control characters, which an image could use to talk to the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_cut() {
        assert_eq!(truncate_id(&format!("sha256:{}", "ab".repeat(32))), "abababababab");
        assert_eq!(truncate_id("<missing>"), "<missing>");
        assert_eq!(truncate_id("sha256:ab"), "ab");
        assert_eq!(truncate_id("€€€€€"), "€€€€");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("short", 5), "short");
        assert_eq!(ellipsis("longer", 5), "long…");
        assert_eq!(ellipsis("数据库", 6), "数据库");
        assert_eq!(ellipsis("数据库", 5), "数据…");
        assert_eq!(ellipsis("数据库", 4), "数…");
        assert_eq!(ellipsis("ab", 0), "…");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("RUN\ta \x1b[31mred\n"), "RUN a  [31mred ");
    }
}
