//! Answers per endpoint.

use std::fmt::Write;
use std::time::Duration;

use api::etcdserverpb::{HashKvResponse, StatusResponse};
use etcdutl::cli::{Outcome, err, out};
use etcdutl::json::{Writer, quoted};
use etcdutl::quantity;
use etcdutl::table;

use super::{Format, Printer, header_json, with_header};

/// Is an endpoint healthy?
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) healthy: bool,
    pub(crate) took: Duration,
    pub(crate) error: String,
}

/// What an endpoint says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) endpoint: String,
    pub(crate) answer: StatusResponse,
}

/// An endpoint's hash.
#[derive(Clone, Debug)]
pub(crate) struct Hash {
    pub(crate) endpoint: String,
    pub(crate) answer: HashKvResponse,
}

const STATUS_HEADINGS: &[&str] = &[
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
];

impl Printer {
    fn rows(&self, headings: &[&str], rows: &[Vec<String>], json: String, fields: String) -> Outcome {
        if self.format == Format::Table {
            return out(table::draw(headings, rows));
        }
        self.show(
            || Some(rows.iter().map(|row| row.join(", ") + "\n").collect::<String>().into_bytes()),
            || Some(json),
            || Some(fields),
            || None,
        )
    }

    pub(crate) fn health(&self, list: &[Health]) -> Outcome {
        if self.format == Format::Simple {
            for one in list {
                if one.healthy {
                    let took = quantity::duration(one.took);
                    let text =
                        format!("{} is healthy: successfully committed proposal: took = {took}\n", one.endpoint);
                    out(text)?;
                } else {
                    let text =
                        format!("{} is unhealthy: failed to commit proposal: {}\n", one.endpoint, one.error);
                    err(&text);
                }
            }
            return Ok(());
        }
        let rows: Vec<Vec<String>> = (list.iter())
            .map(|one| {
                let took = quantity::duration(one.took);
                vec![one.endpoint.clone(), one.healthy.to_string(), took, one.error.clone()]
            })
            .collect();
        let json = json_list(list.iter().map(|one| {
            let mut object = Writer::object();
            object.field("endpoint", quoted(&one.endpoint)).field("health", one.healthy);
            object.field("took", quoted(&quantity::duration(one.took))).text("error", &one.error);
            object.end()
        }));
        let mut fields = String::new();
        for one in list {
            let _ = writeln!(fields, "\"Endpoint\" : {}", quote(&one.endpoint));
            let _ = writeln!(fields, "\"Health\" : {}", one.healthy);
            let _ = writeln!(fields, "\"Took\" : {}", quantity::duration(one.took));
            let _ = writeln!(fields, "\"Error\" : {}\n", one.error);
        }
        self.rows(&["endpoint", "health", "took", "error"], &rows, json, fields)
    }

    pub(crate) fn status(&self, list: &[Status]) -> Outcome {
        let rows: Vec<Vec<String>> = list.iter().map(status_cells).collect();
        let json = json_list(list.iter().map(|one| {
            let mut object = Writer::object();
            object.field("Endpoint", quoted(&one.endpoint)).field("Status", status_json(&one.answer));
            object.end()
        }));
        let fields = list.iter().map(|one| self.status_fields(one)).collect();
        self.rows(STATUS_HEADINGS, &rows, json, fields)
    }

    fn status_fields(&self, one: &Status) -> String {
        let answer = &one.answer;
        let mut text = self.header_fields(answer.header.as_ref());
        let downgrade = answer.downgrade_info.clone().unwrap_or_default();
        let lines = [
            ("Version", quote(&answer.version)),
            ("StorageVersion", quote(&answer.storage_version)),
            ("DBSize", answer.db_size.to_string()),
            ("DBSizeInUse", answer.db_size_in_use.to_string()),
            ("DBSizeQuota", answer.db_size_quota.to_string()),
            // In decimal even where ids are in hex, as Go prints it.
            ("Leader", answer.leader.to_string()),
            ("IsLearner", answer.is_learner.to_string()),
            ("RaftIndex", answer.raft_index.to_string()),
            ("RaftAppliedIndex", answer.raft_applied_index.to_string()),
            ("Errors", format!("[{}]", answer.errors.join(" "))),
            ("Endpoint", quote(&one.endpoint)),
            ("DowngradeTargetVersion", quote(&downgrade.target_version)),
            ("DowngradeEnabled", downgrade.enabled.to_string()),
        ];
        for (name, value) in lines {
            let _ = writeln!(text, "\"{name}\" : {value}");
        }
        text.push('\n');
        text
    }

    pub(crate) fn hash_kv(&self, list: &[Hash]) -> Outcome {
        let rows: Vec<Vec<String>> = (list.iter())
            .map(|one| {
                vec![one.endpoint.clone(), one.answer.hash.to_string(), one.answer.hash_revision.to_string()]
            })
            .collect();
        let json = json_list(list.iter().map(|one| {
            let mut inner = with_header(one.answer.header.as_ref());
            inner.number("hash", one.answer.hash).number("compact_revision", one.answer.compact_revision);
            inner.number("hash_revision", one.answer.hash_revision);
            let mut object = Writer::object();
            object.field("Endpoint", quoted(&one.endpoint)).field("HashKV", inner.end()).end()
        }));
        let mut fields = String::new();
        for one in list {
            fields.push_str(&self.header_fields(one.answer.header.as_ref()));
            let _ = writeln!(fields, "\"Endpoint\" : {}", quote(&one.endpoint));
            let _ = writeln!(fields, "\"Hash\" : {}", one.answer.hash);
            let _ = writeln!(fields, "\"HashRevision\" : {}\n", one.answer.hash_revision);
        }
        self.rows(&["endpoint", "hash", "hash_revision"], &rows, json, fields)
    }
}

/// A Go slice that was never appended to is null.
fn json_list(items: impl Iterator<Item = String>) -> String {
    let mut list = Writer::list();
    let mut empty = true;
    for item in items {
        empty = false;
        list.item(item);
    }
    if empty { "null".into() } else { list.end() }
}

fn quote(text: &str) -> String {
    etcdutl::text::quote(text.as_bytes())
}

fn size(bytes: i64) -> String {
    quantity::bytes(u64::try_from(bytes).unwrap_or_default())
}

fn status_cells(one: &Status) -> Vec<String> {
    let answer = &one.answer;
    let id = answer.header.as_ref().map_or(0, |header| header.member_id);
    let used = if answer.db_size > 0 { answer.db_size_in_use * 100 / answer.db_size } else { 100 };
    let downgrade = answer.downgrade_info.clone().unwrap_or_default();
    vec![
        one.endpoint.clone(),
        format!("{id:x}"),
        answer.version.clone(),
        answer.storage_version.clone(),
        size(answer.db_size),
        size(answer.db_size_in_use),
        format!("{}%", 100 - used),
        size(answer.db_size_quota),
        (answer.leader == id).to_string(),
        answer.is_learner.to_string(),
        answer.raft_term.to_string(),
        answer.raft_index.to_string(),
        answer.raft_applied_index.to_string(),
        answer.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

fn status_json(answer: &StatusResponse) -> String {
    let mut object = Writer::object();
    if let Some(header) = &answer.header {
        object.field("header", header_json(header));
    }
    object.text("version", &answer.version).number("dbSize", answer.db_size).number("leader", answer.leader);
    object.number("raftIndex", answer.raft_index).number("raftTerm", answer.raft_term);
    object.number("raftAppliedIndex", answer.raft_applied_index);
    object.items("errors", answer.errors.iter().map(|error| quoted(error)));
    object.number("dbSizeInUse", answer.db_size_in_use).switch("isLearner", answer.is_learner);
    object.text("storageVersion", &answer.storage_version).number("dbSizeQuota", answer.db_size_quota);
    if let Some(downgrade) = &answer.downgrade_info {
        let mut inner = Writer::object();
        inner.switch("enabled", downgrade.enabled).text("targetVersion", &downgrade.target_version);
        object.field("downgradeInfo", inner.end());
    }
    object.end()
}
