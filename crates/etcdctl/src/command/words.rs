//! Splitting lines that people type into words: blanks part them, quotes of either kind keep them together.

use etcdutl::text::unquote;

/// The words of a line. `"..."` is read with escapes, `'...'` as it is; in the middle of a word quotes are letters.
/// `None` when an escape makes no sense.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        if first.is_ascii_whitespace() {
            rest = &rest[1..];
            continue;
        }
        if first == b'"' || first == b'\'' {
            match closing(rest) {
                // A quote that is never closed is passed over.
                None => rest = &rest[1..],
                Some(end) if first == b'\'' => {
                    words.push(rest[1..end].to_vec());
                    rest = &rest[end + 1..];
                }
                Some(end) => {
                    words.push(unquote(&rest[..=end])?.0);
                    rest = &rest[end + 1..];
                }
            }
            continue;
        }
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        words.push(rest[..end].to_vec());
        rest = &rest[end..];
    }
    Some(words)
}

/// Where the quote that the text begins with is closed.
fn closing(text: &[u8]) -> Option<usize> {
    let quote = text[0];
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if quote == b'"' => at += 1,
            byte if byte == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes()).expect("the line makes sense");
        words.into_iter().map(|word| String::from_utf8(word).expect("UTF-8")).collect()
    }

    #[test]
    fn lines() {
        assert_eq!(words("put a b"), ["put", "a", "b"]);
        assert_eq!(words("  put \"a b\"  'c \"d' "), ["put", "a b", "c \"d"]);
        assert_eq!(words(r#"put "a\n\"" x"y z"#), ["put", "a\n\"", "x\"y", "z"]);
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words("put \"open"), ["put", "open"]);
        assert_eq!(split(br#"put "\q""#), None);
    }
}
