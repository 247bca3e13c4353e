//! Answers about members, alarms, leadership and downgrades.

use std::fmt::Write;

use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{
    AlarmMember, AlarmResponse, AlarmType, DowngradeResponse, Member, MemberAddResponse, MemberListResponse,
    MoveLeaderResponse, ResponseHeader,
};
use etcdutl::cli::{Outcome, out};
use etcdutl::json::{Writer, quoted};
use etcdutl::table;
use prost::Message;

use super::{Format, Printer, with_header};

const HEADINGS: &[&str] = &["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];

fn cells(member: &Member) -> Vec<String> {
    let status = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        status.into(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

impl Printer {
    fn id_json(&self, id: u64) -> String {
        if self.hex { quoted(&format!("{id:x}")) } else { id.to_string() }
    }

    fn cluster_header(&self, header: Option<&ResponseHeader>) -> Writer {
        let Some(header) = header.filter(|_| self.hex) else { return with_header(header) };
        let mut inner = Writer::object();
        inner.field("cluster_id", self.id_json(header.cluster_id));
        inner.field("member_id", self.id_json(header.member_id));
        inner.number("revision", header.revision).number("raft_term", header.raft_term);
        let mut object = Writer::object();
        object.field("header", inner.end());
        object
    }

    fn member_json(&self, member: &Member) -> String {
        let mut object = Writer::object();
        if member.id != 0 {
            object.field("ID", self.id_json(member.id));
        }
        object.text("name", &member.name);
        object.items("peerURLs", member.peer_ur_ls.iter().map(|url| quoted(url)));
        object.items("clientURLs", member.client_ur_ls.iter().map(|url| quoted(url)));
        object.switch("isLearner", member.is_learner);
        object.end()
    }

    fn members_json(&self, header: Option<&ResponseHeader>, members: &[Member]) -> String {
        let mut object = self.cluster_header(header);
        object.items("members", members.iter().map(|member| self.member_json(member)));
        object.end()
    }

    pub(crate) fn member_list(&self, answer: &MemberListResponse) -> Outcome {
        let rows: Vec<Vec<String>> = answer.members.iter().map(cells).collect();
        if self.format == Format::Table {
            return out(table::draw(HEADINGS, &rows));
        }
        self.show(
            || Some(rows.iter().map(|row| row.join(", ") + "\n").collect::<String>().into_bytes()),
            || Some(self.members_json(answer.header.as_ref(), &answer.members)),
            || {
                let mut text = self.header_fields(answer.header.as_ref());
                for member in &answer.members {
                    let _ = writeln!(text, "\"ID\" : {}", self.id(member.id));
                    let _ = writeln!(text, "\"Name\" : {}", quote(&member.name));
                    for url in &member.peer_ur_ls {
                        let _ = writeln!(text, "\"PeerURL\" : {}", quote(url));
                    }
                    for url in &member.client_ur_ls {
                        let _ = writeln!(text, "\"ClientURL\" : {}", quote(url));
                    }
                    let _ = writeln!(text, "\"IsLearner\" : {}\n", member.is_learner);
                }
                Some(text)
            },
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn member_add(&self, answer: &MemberAddResponse) -> Outcome {
        let member = answer.member.clone().unwrap_or_default();
        let cluster = answer.header.map_or(0, |header| header.cluster_id);
        let learner = if member.is_learner { " as learner" } else { "" };
        self.show(
            || Some(format!("Member {:16x} added{learner} to cluster {cluster:16x}\n", member.id).into_bytes()),
            || {
                let mut object = self.cluster_header(answer.header.as_ref());
                object.field("member", self.member_json(&member));
                object.items("members", answer.members.iter().map(|member| self.member_json(member)));
                Some(object.end())
            },
            || None,
            || Some(answer.encode_to_vec()),
        )
    }

    /// `removed from`, `updated in` or `promoted in`.
    pub(crate) fn member_changed(
        &self,
        id: u64,
        how: &str,
        header: Option<&ResponseHeader>,
        members: &[Member],
        answer: &impl Message,
    ) -> Outcome {
        let cluster = header.map_or(0, |header| header.cluster_id);
        self.show(
            || Some(format!("Member {id:16x} {how} cluster {cluster:16x}\n").into_bytes()),
            || Some(self.members_json(header, members)),
            || None,
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn alarms(&self, answer: &AlarmResponse) -> Outcome {
        self.show(
            || Some(answer.alarms.iter().map(|alarm| alarm_text(alarm) + "\n").collect::<String>().into_bytes()),
            || {
                let mut object = with_header(answer.header.as_ref());
                object.items("alarms", answer.alarms.iter().map(|alarm| {
                    let mut object = Writer::object();
                    object.number("memberID", alarm.member_id).number("alarm", alarm.alarm).end()
                }));
                Some(object.end())
            },
            || {
                let mut text = self.header_fields(answer.header.as_ref());
                for alarm in &answer.alarms {
                    let _ = writeln!(text, "\"MemberID\" : {}", self.id(alarm.member_id));
                    let _ = writeln!(text, "\"AlarmType\" : {}\n", alarm_name(alarm.alarm));
                }
                Some(text)
            },
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn move_leader(&self, from: u64, to: u64, answer: &MoveLeaderResponse) -> Outcome {
        let line = format!("Leadership transferred from {from:x} to {to:x}");
        self.show_line(line, answer.header.as_ref(), answer, false)
    }

    pub(crate) fn downgrade(&self, action: DowngradeAction, answer: &DowngradeResponse) -> Outcome {
        let name = match action {
            DowngradeAction::Validate => "validate",
            DowngradeAction::Enable => "enable",
            DowngradeAction::Cancel => "cancel",
        };
        self.show(
            || {
                let text = format!("Downgrade {name} success, cluster version {}\n", answer.version);
                Some(text.into_bytes())
            },
            || Some(with_header(answer.header.as_ref()).text("version", &answer.version).end()),
            || None,
            || Some(answer.encode_to_vec()),
        )
    }
}

fn quote(text: &str) -> String {
    etcdutl::text::quote(text.as_bytes())
}

/// The name of an alarm, or its number where it has none.
pub(crate) fn alarm_name(alarm: i32) -> String {
    AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |alarm| alarm.as_str_name().to_owned())
}

/// The text form of the message: two blanks between the fields, as etcd 3.7.3 happens to print them.
fn alarm_text(alarm: &AlarmMember) -> String {
    let mut parts = Vec::new();
    if alarm.member_id != 0 {
        parts.push(format!("memberID:{}", alarm.member_id));
    }
    if alarm.alarm != 0 {
        parts.push(format!("alarm:{}", alarm_name(alarm.alarm)));
    }
    parts.join("  ")
}
