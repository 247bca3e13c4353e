//! The parity tables under `tests/data/parity`, walked row by row, and bytes that Go members wrote.

mod bytes;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;

/// A file under `tests/data` of the repository.
fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rows of a table, each as column name to text.
fn table(name: &str) -> Vec<BTreeMap<String, String>> {
    let text = data(&format!("parity/{name}.tsv"));
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().expect("a head line").split('\t').collect();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            assert_eq!(cells.len(), columns.len(), "{name}: {line}");
            columns.iter().zip(cells).map(|(c, v)| ((*c).to_owned(), v.to_owned())).collect()
        })
        .collect()
}
