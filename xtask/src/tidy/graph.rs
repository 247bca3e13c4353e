//! The crate graph: manifests against the table in ARCHITECTURE.md, and the reasons for outside crates.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source};
use crate::shell::{Failure, Result};

/// Outside crates that bring a runtime, a socket or a clock; values in, values out needs none of them.
const RUNTIMES: &[&str] = &[
    "async-std",
    "axum",
    "chrono",
    "crossbeam-channel",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "rand",
    "reqwest",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-rustls",
    "tonic",
    "tower",
];

/// The crates that face the outside. Everything else may not use [`RUNTIMES`].
const OUTER: &[&str] = &["client", "etcd", "etcdctl", "etcdutl"];

pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let text = |path: &str| {
        let found = sources.iter().find(|s| s.path == path);
        found.map(|s| s.text.as_str()).ok_or_else(|| Failure::new(format!("{path} is missing")))
    };
    let allowed = table(text("ARCHITECTURE.md")?);
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for source in sources.iter().filter(|s| s.path.ends_with("/Cargo.toml")) {
        let manifest = Manifest::read(&source.text);
        used.extend(manifest.all().map(str::to_owned));
        let Some(name) = source.path.strip_prefix("crates/").and_then(|p| p.strip_suffix("/Cargo.toml"))
        else {
            continue;
        };
        seen.insert(name.to_owned());
        findings.extend(one_crate(name, &source.path, &manifest, &allowed));
    }
    for name in allowed.keys().filter(|name| !seen.contains(*name)) {
        findings.push(Finding::new(
            "ARCHITECTURE.md",
            format!("the table names a crate {name} that is not there"),
        ));
    }
    findings.extend(reasons(text("Cargo.toml")?, &used));
    Ok(findings)
}

fn one_crate(
    name: &str,
    path: &str,
    manifest: &Manifest,
    allowed: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<Finding> {
    let Some(mine) = allowed.get(name) else {
        return vec![Finding::new(path, "no row in the table of crates in ARCHITECTURE.md")];
    };
    let mut findings = Vec::new();
    for dependency in &manifest.normal {
        if allowed.contains_key(dependency) && !mine.contains(dependency) {
            findings.push(Finding::new(
                path,
                format!("{name} may not use {dependency} (ARCHITECTURE.md, crates)"),
            ));
        }
        if !OUTER.contains(&name) && RUNTIMES.contains(&dependency.as_str()) {
            findings.push(Finding::new(
                path,
                format!("{name} is values in, values out: {dependency} is not for it"),
            ));
        }
    }
    findings
}

/// Crate to the crates it may use, from the rows "| `name` | a b c |" below the heading that ends in "Crates".
fn table(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rows = BTreeMap::new();
    let section =
        architecture.lines().skip_while(|l| !(l.starts_with("## ") && l.ends_with("Crates"))).skip(1);
    for line in section.take_while(|l| !l.starts_with("## ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", name, uses, ..] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|n| n.strip_suffix('`'))
        {
            rows.insert(
                name.to_owned(),
                uses.split_whitespace().filter(|u| *u != "-").map(str::to_owned).collect(),
            );
        }
    }
    rows
}

/// Names of the dependencies in a manifest.
struct Manifest {
    normal: BTreeSet<String>,
    development: BTreeSet<String>,
}

impl Manifest {
    /// Understands the forms used here: `name = ...`, `name.workspace = true`, one per line.
    fn read(text: &str) -> Manifest {
        let mut manifest = Manifest { normal: BTreeSet::new(), development: BTreeSet::new() };
        let mut section = "";
        for line in text.lines() {
            if let Some(head) = line.strip_prefix('[') {
                section = head.trim_end_matches(']');
                continue;
            }
            let Some((name, _)) = line.split_once(['=', '.']) else { continue };
            let name = name.trim().trim_matches('"').to_owned();
            if name.starts_with('#') || name.is_empty() {
                continue;
            }
            match section.rsplit('.').next() {
                Some("dependencies" | "build-dependencies") if section != "workspace.dependencies" => {
                    manifest.normal.insert(name);
                }
                Some("dev-dependencies") => {
                    manifest.development.insert(name);
                }
                _ => {}
            }
        }
        manifest
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.normal.iter().chain(&self.development).map(String::as_str)
    }
}

/// Every outside crate in the workspace's table is used, and its line says what for.
fn reasons(workspace: &str, used: &BTreeSet<String>) -> Vec<Finding> {
    let section = workspace.lines().skip_while(|l| *l != "[workspace.dependencies]").skip(1);
    let mut findings = Vec::new();
    for line in section.take_while(|l| !l.starts_with('[')) {
        let Some((name, rest)) = line.split_once('=') else { continue };
        let name = name.trim();
        if name.starts_with('#') || rest.contains("path = ") {
            continue;
        }
        if rest.split_once("# ").is_none_or(|(_, reason)| reason.trim().len() < 3) {
            findings.push(Finding::new("Cargo.toml", format!("{name}: say on its line what it is here for")));
        }
        if !used.contains(name) {
            findings.push(Finding::new("Cargo.toml", format!("{name}: nobody uses it")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::source;
    use super::*;

    const TABLE: &str = "# A\n\n## 2. Crates\n\n| crate | may use |\n|---|---|\n| `a` | - |\n| `b` | a |\n\n## 3. Rest\n| `c` | a |\n";

    fn findings(a: &str, b: &str, workspace: &str) -> Vec<String> {
        let sources = [
            source("ARCHITECTURE.md", TABLE),
            source("Cargo.toml", &format!("[workspace.dependencies]\n{workspace}")),
            source("crates/a/Cargo.toml", a),
            source("crates/b/Cargo.toml", b),
        ];
        check(&sources).unwrap().into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn an_edge_the_table_does_not_have_is_found() {
        assert_eq!(findings("", "[dependencies]\na = { workspace = true }\n", ""), [""; 0]);
        let found = findings("[dependencies]\nb.workspace = true\n", "", "");
        assert_eq!(found, ["a may not use b (ARCHITECTURE.md, crates)"]);
        // What only tests use is no edge.
        assert_eq!(findings("[dev-dependencies]\nb.workspace = true\n", "", ""), [""; 0]);
    }

    #[test]
    fn runtimes_stay_outside() {
        let found = findings(
            "[dependencies]\ntokio = { workspace = true }\n",
            "",
            "tokio = \"1\" # epoll and timers\n",
        );
        assert_eq!(found, ["a is values in, values out: tokio is not for it"]);
    }

    #[test]
    fn outside_crates_need_a_user_and_a_reason() {
        let found = findings(
            "[dependencies]\nx = { workspace = true }\n",
            "",
            "x = \"1\"\ny = \"1\" # to have it too\n",
        );
        assert_eq!(found, ["x: say on its line what it is here for", "y: nobody uses it"]);
    }

    #[test]
    fn rows_and_crates_must_meet() {
        let sources = [
            source("ARCHITECTURE.md", TABLE),
            source("Cargo.toml", ""),
            source("crates/a/Cargo.toml", ""),
            source("crates/z/Cargo.toml", ""),
        ];
        assert_eq!(check(&sources).unwrap().len(), 2);
    }
}
