//! Ratchets: a file has at most 600 lines and a function 70, tests aside. What was longer when this was last recorded
//! stands in `xtask/long.txt` and may not grow; a file of more than 800 lines is too long whatever stands there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Finding, Source};
use crate::shell::{Doing, Result, root};

const FILE_LINES: usize = 600;
const FILE_LINES_HARD: usize = 800;
const FUNCTION_LINES: usize = 70;
const LIST: &str = "xtask/long.txt";

/// Name ("path" or "path function") to lines.
type Sizes = BTreeMap<String, usize>;

pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let known = read(sources.iter().find(|s| s.path == LIST).map_or("", |s| s.text.as_str()))?;
    Ok(compare(&long(sources), &known))
}

/// Writes the list anew: lower where something shrank. What grew is refused as ever.
pub(super) fn record(sources: &[Source]) -> Result<()> {
    let known = read(sources.iter().find(|s| s.path == LIST).map_or("", |s| s.text.as_str()))?;
    let mut text =
        "# Longer than the house wants, in lines. May shrink, may not grow: see xtask/src/tidy/sizes.rs.\n"
            .to_owned();
    for (name, lines) in long(sources) {
        // What is new must be shortened or put here by hand, where the review sees it.
        if let Some(before) = known.get(&name) {
            writeln!(text, "{} {name}", lines.min(*before)).doing(LIST)?;
        }
    }
    std::fs::write(root().join(LIST), text).doing(LIST)
}

fn read(list: &str) -> Result<Sizes> {
    let mut known = Sizes::new();
    for line in list.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (lines, name) = line.split_once(' ').unwrap_or((line, ""));
        known.insert(name.to_owned(), lines.parse().doing(format!("{LIST}: {line}"))?);
    }
    Ok(known)
}

fn compare(long: &Sizes, known: &Sizes) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, lines) in long {
        let is_file = !name.contains(' ');
        let limit = if is_file { FILE_LINES } else { FUNCTION_LINES };
        let allowed = known.get(name).copied().unwrap_or(limit);
        if is_file && *lines > FILE_LINES_HARD {
            findings
                .push(Finding::new(name, format!("{lines} lines; no file has more than {FILE_LINES_HARD}")));
        } else if *lines > allowed {
            findings.push(Finding::new(name, format!("{lines} lines; at most {allowed}")));
        }
    }
    for name in known.keys().filter(|name| !long.contains_key(*name)) {
        findings.push(Finding::new(LIST, format!("{name} is short now: `cargo xtask tidy --record`")));
    }
    findings
}

/// What is over its limit.
fn long(sources: &[Source]) -> Sizes {
    let mut long = Sizes::new();
    for source in sources.iter().filter(|s| s.is_rust() && !s.is_generated() && !s.is_test()) {
        let lines = source.code().lines().count();
        if lines > FILE_LINES {
            long.insert(source.path.clone(), lines);
        }
        for (name, lines) in functions(source.code()) {
            if lines > FUNCTION_LINES {
                let size = long.entry(format!("{} {name}", source.path)).or_default();
                *size = lines.max(*size);
            }
        }
    }
    long
}

/// Functions with the lines they take. Relies on rustfmt: a function ends at the first brace in its own column.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let without_body = |l: &&&str| l.ends_with(';') || l.ends_with('}');
        let header = lines[at..].iter().find(|l| l.ends_with('{') || without_body(l));
        if header.is_none_or(|l| !l.ends_with('{')) {
            continue;
        }
        if let Some(length) = lines[at..].iter().position(|l| *l == end) {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let qualifiers = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
    let plain = before.split_whitespace().all(|word| qualifiers.contains(&word) || word.starts_with("pub("));
    // `pub(in path)` has a blank inside; nothing here uses it.
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (plain && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::source;
    use super::*;

    fn function(name: &str, lines: usize) -> String {
        format!(
            "    pub(crate) fn {name}(\n        &self,\n    ) {{\n{}    }}\n",
            "        x();\n".repeat(lines - 4)
        )
    }

    #[test]
    fn functions_are_measured() {
        let code = format!(
            "impl A {{\n{}{}    fn c();\n    fn d() {{}}\n}}\n\nfn e() {{\n    fn f() {{\n    }}\n}}\n",
            function("a", 71),
            function("b", 70)
        );
        let sizes: Vec<_> = functions(&code);
        let expected = [("a", 71), ("b", 70), ("e", 4), ("f", 2)];
        assert_eq!(sizes, expected.map(|(name, lines)| (name.to_owned(), lines)));
        assert_eq!(
            long(&[source("crates/a/src/b.rs", &code)]),
            Sizes::from([("crates/a/src/b.rs a".to_owned(), 71)])
        );
    }

    #[test]
    fn what_is_known_may_shrink_but_not_grow() {
        let sizes = |lines| Sizes::from([("f.rs".to_owned(), lines)]);
        assert_eq!(compare(&sizes(700), &sizes(700)), []);
        assert_eq!(compare(&sizes(650), &sizes(700)), []);
        assert_eq!(compare(&sizes(701), &sizes(700)).len(), 1);
        assert_eq!(compare(&sizes(601), &Sizes::new()).len(), 1);
        assert_eq!(compare(&sizes(900), &sizes(900)).len(), 1);
        assert_eq!(compare(&Sizes::new(), &sizes(700)).len(), 1);
        assert_eq!(read("# head\n700 f.rs\n").unwrap(), sizes(700));
        assert!(read("many f.rs\n").is_err());
    }

    #[test]
    fn tests_and_generated_files_do_not_count() {
        let lines = "x\n".repeat(700);
        assert_eq!(long(&[source("crates/a/src/b.rs", &lines)]).len(), 1);
        assert!(long(&[source("crates/a/src/b/tests.rs", &lines)]).is_empty());
        assert!(long(&[source("crates/api/src/gen/b.rs", &lines)]).is_empty());
        assert!(
            long(&[source(
                "crates/a/src/b.rs",
                &format!("//! b\n\n#[cfg(test)]\nmod tests {{\n{lines}}}\n")
            )])
            .is_empty()
        );
    }
}
