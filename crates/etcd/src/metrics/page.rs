//! The text form of Prometheus: families sorted by name, numbers printed as Go prints them.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::families::{self, Kind};
use super::value::Snapshot;

/// Families gathered so far. Only names of the table may be put in, which also gives kind and help.
#[derive(Default)]
pub(crate) struct Page(BTreeMap<&'static str, Vec<Metric>>);

/// One metric of a family: the values of its labels, by which it is sorted, and its lines.
type Metric = (Vec<String>, String);

/// Label and value; labels must come in alphabetical order.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    fn metric(&mut self, name: &str, labels: Labels<'_>) -> (Kind, &mut String) {
        let family = families::find(name).unwrap_or_else(|| panic!("no family {name} in the table"));
        let metrics = self.0.entry(family.name).or_default();
        metrics.push((labels.iter().map(|(_, value)| (*value).to_string()).collect(), String::new()));
        (family.kind, &mut metrics.last_mut().expect("one was just put in").1)
    }

    /// One number without labels.
    pub(crate) fn value(&mut self, name: &str, value: f64) {
        self.labelled(name, &[], value);
    }

    /// One number with labels.
    pub(crate) fn labelled(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        let (kind, out) = self.metric(name, labels);
        debug_assert!(kind != Kind::Histogram, "{name} takes snapshots");
        out.push_str(name);
        put_labels(out, labels, None);
        writeln!(out, " {}", number(value)).expect("a string grows");
    }

    /// A histogram.
    pub(crate) fn histogram(&mut self, name: &str, labels: Labels<'_>, snapshot: &Snapshot) {
        let (kind, out) = self.metric(name, labels);
        debug_assert!(kind == Kind::Histogram, "{name} takes numbers");
        let mut count = 0;
        for (bound, total) in snapshot.cumulative() {
            write!(out, "{name}_bucket").expect("a string grows");
            put_labels(out, labels, Some(&number(bound)));
            writeln!(out, " {total}").expect("a string grows");
            count = total;
        }
        for (part, value) in [("_sum", number(snapshot.sum)), ("_count", count.to_string())] {
            write!(out, "{name}{part}").expect("a string grows");
            put_labels(out, labels, None);
            writeln!(out, " {value}").expect("a string grows");
        }
    }

    /// The whole page.
    pub(crate) fn render(self) -> String {
        let mut page = String::with_capacity(256 << 10);
        for (name, mut metrics) in self.0 {
            let family = families::find(name).expect("only families of the table were put in");
            write!(page, "# HELP {name} {}\n# TYPE {name} {}\n", family.help, family.kind.word())
                .expect("a string grows");
            metrics.sort_by(|(one, _), (other, _)| one.cmp(other));
            metrics.iter().for_each(|(_, lines)| page.push_str(lines));
        }
        page
    }
}

fn put_labels(out: &mut String, labels: Labels<'_>, bound: Option<&str>) {
    if labels.is_empty() && bound.is_none() {
        return;
    }
    let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
    for (i, (label, value)) in all.enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push('}');
}

/// A number in Go's shortest form: `20480`, `2.147483648e+09`, `8.7e-05`, `+Inf`.
pub(crate) fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if value.is_nan() {
        return "NaN".into();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the form has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (value, text) in [
            (20480.0, "20480"), (2_147_483_648.0, "2.147483648e+09"), (1_048_576.0, "1.048576e+06"), (123_456.0, "123456"),
            (1e21, "1e+21"), (12_345_678.5, "1.23456785e+07"), (0.0001, "0.0001"), (8.7e-5, "8.7e-05"), (0.0, "0"),
            (0.014_318_408_000_000_001, "0.014318408000000001"), (-1.0, "-1"), (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_page_is_sorted_and_labels_are_escaped() {
        let mut page = Page::default();
        page.value("etcd_server_is_leader", 1.0);
        page.labelled("etcd_server_id", &[("server_id", "a\"b\\")], 1.0);
        let text = page.render();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE etcd_server_id gauge", "etcd_server_id{server_id=\"a\\\"b\\\\\"} 1",
                "# TYPE etcd_server_is_leader gauge", "etcd_server_is_leader 1",
            ]
        );
    }
}
