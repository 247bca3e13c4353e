//! JSON as Go's encoder writes it from structs: fields in order, empty ones left out where the struct says so.

use std::fmt::{Display, Write};

/// An object or a list that is being written.
#[derive(Debug)]
pub struct Writer {
    text: String,
    first: bool,
    close: char,
}

/// Text between quotes, fit for a page of HTML too.
#[must_use]
pub fn quoted(text: &str) -> String {
    plain(text).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Text between quotes, as log lines have it.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Bytes in base 64, between quotes.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 6);
    text.push('"');
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let index = bits >> (18 - 6 * place) & 63;
                text.push(char::from(LETTERS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text.push('"');
    text
}

impl Writer {
    /// An object.
    #[must_use]
    pub fn object() -> Writer {
        Writer { text: "{".into(), first: true, close: '}' }
    }

    /// A list.
    #[must_use]
    pub fn list() -> Writer {
        Writer { text: "[".into(), first: true, close: ']' }
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.text.push(',');
        }
    }

    /// A field with a value that already is JSON.
    pub fn field(&mut self, name: &str, value: impl Display) -> &mut Writer {
        self.comma();
        let _ = write!(self.text, "{}:{value}", quoted(name));
        self
    }

    /// A number, left out when it is 0.
    pub fn number(&mut self, name: &str, value: impl Display + Default + PartialEq) -> &mut Writer {
        if value == Default::default() { self } else { self.field(name, value) }
    }

    /// A switch, left out when it is off.
    pub fn switch(&mut self, name: &str, value: bool) -> &mut Writer {
        if value { self.field(name, "true") } else { self }
    }

    /// Text, left out when it is empty.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Writer {
        if value.is_empty() { self } else { self.field(name, quoted(value)) }
    }

    /// Bytes, left out when there are none.
    pub fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Writer {
        if value.is_empty() { self } else { self.field(name, base64(value)) }
    }

    /// A list, left out when it is empty.
    pub fn items(&mut self, name: &str, values: impl IntoIterator<Item = String>) -> &mut Writer {
        let mut list = Writer::list();
        for value in values {
            list.item(value);
        }
        if list.first { self } else { self.field(name, list.end()) }
    }

    /// A value of a list that already is JSON.
    pub fn item(&mut self, value: impl Display) -> &mut Writer {
        self.comma();
        let _ = write!(self.text, "{value}");
        self
    }

    /// The text.
    #[must_use]
    pub fn end(&mut self) -> String {
        self.text.push(self.close);
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_it() {
        let mut object = Writer::object();
        object.number("a", 0).number("b", 7_u64).switch("c", false).switch("d", true);
        object.text("e", "<\"\u{1}\n>").bytes("f", b"foo").items("g", ["1".to_owned(), "2".to_owned()]);
        object.items("h", []);
        assert_eq!(
            object.end(),
            "{\"b\":7,\"d\":true,\"e\":\"\\u003c\\\"\\u0001\\n\\u003e\",\"f\":\"Zm9v\",\"g\":[1,2]}"
        );
        assert_eq!(base64(b"f"), "\"Zg==\"");
        assert_eq!(base64(b"fo"), "\"Zm8=\"");
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0xfc]), "\"//79/A==\"");
    }
}
