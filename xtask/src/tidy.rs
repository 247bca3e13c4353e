//! `cargo xtask tidy`: the house rules that a program can check. CONTRIBUTING.md says what they are for.

mod graph;
mod sizes;
mod words;

use std::path::{Path, PathBuf};

use crate::shell::{Cmd, Doing, Failure, Result, root};

/// A text file that git knows, or would know after `git add`.
struct Source {
    /// Relative to the root, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == "rs")
    }

    fn is_generated(&self) -> bool {
        self.path.starts_with("crates/api/src/gen/")
    }

    /// Whether this file is compiled for tests only.
    fn is_test(&self) -> bool {
        let inside =
            |dir: &str| self.path.starts_with(&format!("{dir}/")) || self.path.contains(&format!("/{dir}/"));
        inside("tests") || inside("benches") || inside("examples") || self.path.ends_with("/tests.rs")
    }

    /// The text up to the tests at its end.
    fn code(&self) -> &str {
        self.text.find("\n#[cfg(test)]\nmod ").map_or(&self.text, |at| &self.text[..=at])
    }
}

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// File, and line where there is one.
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { place: place.into(), what: what.into() }
    }
}

pub(crate) fn run(record: bool) -> Result<()> {
    let sources = sources()?;
    if record {
        return sizes::record(&sources);
    }
    let findings = check(&sources)?;
    for finding in &findings {
        eprintln!("{}: {}", finding.place, finding.what);
    }
    match findings.len() {
        0 => Ok(()),
        n => Err(Failure::new(format!("{n} to mend"))),
    }
}

fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let mut findings = graph::check(sources)?;
    findings.extend(heads(sources));
    findings.extend(words::check(sources));
    findings.extend(sizes::check(sources)?);
    Ok(findings)
}

/// All text files of the tree; nothing that git ignores.
fn sources() -> Result<Vec<Source>> {
    const KINDS: &[&str] = &["rs", "toml", "md", "proto", "sh", "txt"];
    let list = Cmd::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).output()?;
    let mut sources = Vec::new();
    for path in list.lines() {
        let file: PathBuf = root().join(path);
        let kind = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let wanted = KINDS.contains(&kind) || path.starts_with(".ci/");
        // A file may be deleted and not yet committed as such.
        if wanted && !path.starts_with("tests/data/") && file.is_file() {
            let text = std::fs::read_to_string(&file).doing(path)?;
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}

/// Every file says in its first line what it is; every library says what it must not know.
fn heads(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        let first = source.text.lines().next().unwrap_or_default();
        if first.strip_prefix("//! ").is_none_or(|head| head.trim().len() < 10) {
            findings
                .push(Finding::new(&source.path, "the first line must be `//! ` and say what this file is"));
        }
        let is_library = source.path.starts_with("crates/") && source.path.ends_with("/src/lib.rs");
        if is_library && !source.text.to_lowercase().contains("must not know") {
            findings.push(Finding::new(&source.path, "the head of a library says what it must not know"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn heads_are_asked_for() {
        let good = "//! What it is; it must not know the rest.\n";
        assert_eq!(heads(&[source("crates/a/src/lib.rs", good)]), []);
        assert_eq!(heads(&[source("crates/a/src/lib.rs", "//! What it is.\n")]).len(), 1);
        assert_eq!(heads(&[source("crates/a/src/b.rs", "//! What it is.\n")]), []);
        for bad in ["", "use a;\n", "//! a\n", "// What it is.\n"] {
            assert_eq!(heads(&[source("crates/a/src/b.rs", bad)]).len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn tests_are_told_from_code() {
        let file =
            source("crates/a/src/b.rs", "//! b\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n");
        assert_eq!(file.code(), "//! b\nfn f() {}\n\n");
        for path in ["tests/e2e/main.rs", "crates/a/tests/b.rs", "crates/a/src/b/tests.rs"] {
            assert!(source(path, "").is_test(), "{path}");
        }
        assert!(!source("xtask/src/test.rs", "").is_test());
    }

    #[test]
    fn the_tree_is_read() {
        let sources = sources().unwrap();
        let this = sources.iter().find(|s| s.path == "xtask/src/tidy.rs").unwrap();
        assert!(this.text.contains("fn the_tree_is_read"));
        assert!(sources.iter().any(|s| s.path == "crates/api/proto/rpc.proto"));
        assert!(!sources.iter().any(|s| s.path.starts_with("target/") || s.path.starts_with("tests/data/")));
        check(&sources).unwrap();
    }
}
