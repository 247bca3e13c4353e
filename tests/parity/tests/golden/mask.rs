//! What differs between two runs of the same thing, replaced by the placeholders of the recordings.

use super::transcript::Left;

/// What comes before a number that is a size, a remaining time, or a count of seconds.
const SIZES: &[&str] = &[
    "\"dbSize\":", "\"dbSizeInUse\":", "\"DBSize\" : ", "\"DBSizeInUse\" : ", "\"totalSize\":", "\"Size\" : ",
    "-bytes\": ", "-bytes-diff\": ",
];
const TIMES: &[&str] = &["remaining(", "\"ttl\":", "\"TTL\":", "\"TTL\" : "];

/// What comes before a raft index: requests that this version refuses leave no entry.
const INDEXES: &[&str] =
    &["\"raftIndex\":", "\"raftAppliedIndex\":", "\"RaftIndex\" : ", "\"RaftAppliedIndex\" : "];

/// Lease ids of the member with default flags begin with the end of its own id.
const LEASE_HEX: &str = "694d";
const LEASE_DECIMAL: &str = "758";

/// Both outputs in a form that two runs share.
pub(crate) fn left(command: &str, workdir: &str, left: &Left) -> Left {
    let place = |text: &str| text.replace(workdir, "WORKDIR");
    Left { stdout: stdout(command, &place(&left.stdout)), stderr: stderr(&place(&left.stderr)), code: left.code }
}

fn stdout(command: &str, text: &str) -> String {
    let text = ascii(text);
    let has_hash = command.contains("snapshot status") || (command.contains("hashkv") && !command.contains("--rev"));
    let text = words(&text, has_hash);
    // Cells of other widths widen their columns.
    let uneven = text.contains("DURATION") || text.contains("SIZE") || text.contains("INDEX") || text.contains("HASH");
    if uneven && text.starts_with('+') { narrow(&text, &[' ', '-']) } else { narrow(&text, &[]) }
}

/// Tables in the characters of 3.6.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '┌' | '┬' | '┐' | '├' | '┼' | '┤' | '└' | '┴' | '┘' => '+',
            '─' => '-',
            '│' => '|',
            c => c,
        })
        .collect()
}

/// Runs of these characters become one. The blanks inside a printed alarm are random in Go.
fn narrow(text: &str, characters: &[char]) -> String {
    let mut narrowed = String::new();
    for c in text.replace("  alarm:", " alarm:").chars() {
        if !(characters.contains(&c) && narrowed.ends_with(c)) {
            narrowed.push(c);
        }
    }
    narrowed
}

fn words(text: &str, has_hash: bool) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == 'µ' || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end == 0 {
            masked.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(end);
        let shown = word_of(&masked, word, after, has_hash);
        masked.push_str(shown);
        rest = after;
    }
    masked
}

fn word_of<'a>(before: &str, word: &'a str, after: &str, has_hash: bool) -> &'a str {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ends = |list: &[&str]| list.iter().any(|end| before.ends_with(end));
    if hex && word.len() == 16 && word.starts_with(LEASE_HEX) {
        "LEASEID"
    } else if digits && word.len() == 19 && word.starts_with(LEASE_DECIMAL) {
        "LEASEID_DECIMAL"
    } else if is_duration(word) {
        "DURATION"
    } else if ends(TIMES) && (digits || word.trim_end_matches('s').bytes().all(|byte| byte.is_ascii_digit())) {
        if word.ends_with('s') { "Ns" } else { "N" }
    } else if (number && after.starts_with(" kB")) || (digits && ends(SIZES)) {
        "SIZE"
    } else if digits && (ends(INDEXES) || is_index_of_list(before)) {
        "INDEX"
    } else if digits && after.starts_with('%') {
        "P"
    } else if has_hash && hex && (7..=10).contains(&word.len()) {
        "HASH"
    } else {
        word
    }
}

/// In lists and tables of `endpoint status`: the twelfth cell and the thirteenth.
fn is_index_of_list(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default();
    let cells = if line.starts_with('|') { line.matches('|').count() } else { line.matches(", ").count() + 1 };
    line.contains("3.7.3") && (cells == 12 || cells == 13)
}

/// `2.5ms`, `17µs`, `1.5s`, but not `1000s`.
fn is_duration(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &word[..word.len() - unit.len()];
    !number.is_empty() && (["ns", "µs", "ms"].contains(&unit) || (unit == "s" && number.contains('.')))
}

/// Messages and errors of log lines; usage texts go, as ours have their own words.
fn stderr(text: &str) -> String {
    let mut kept = String::new();
    let mut in_usage = false;
    for line in text.lines() {
        in_usage = (in_usage || line.starts_with("Usage:")) && !line.starts_with("Error:");
        if in_usage {
            continue;
        }
        let line = if line.starts_with('{') {
            let field = |name: &str| json_field(line, name);
            [field("level"), field("msg"), field("method"), field("error"), field("path")].join(" ")
        } else if let [_, level, middle @ .., message] = &line.split('\t').collect::<Vec<_>>()[..] {
            // The log of bbolt is Go's own.
            if middle.first() == Some(&"bbolt") {
                continue;
            }
            let message = if message.starts_with('{') { format!("{} {message}", middle[middle.len() - 1]) } else { (*message).to_owned() };
            format!("{level} {}", words(&message.replace("-diff\": -", "-diff\": "), false))
        } else if let Some((before, _)) = line.split_once("expected sha256 [") {
            format!("{before}expected sha256 [BYTES], got [BYTES]")
        } else {
            words(line, false)
        };
        kept.push_str(line.trim_end());
        kept.push('\n');
    }
    narrow(&kept, &[])
}

/// A text field of a log line, quotes inside it and all.
fn json_field(line: &str, name: &str) -> String {
    let Some(start) = line.find(&format!("\"{name}\":\"")) else { return String::new() };
    let value = &line[start + name.len() + 4..];
    let mut escaped = false;
    let end = value.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    value[..end.unwrap_or(value.len())].to_owned()
}
