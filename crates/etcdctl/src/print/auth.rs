//! Answers about users, roles and authentication.

use std::fmt::Write;

use api::authpb::Permission;
use api::authpb::permission::Type;
use api::etcdserverpb::{
    AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserGetResponse, AuthUserListResponse,
    ResponseHeader,
};
use etcdutl::cli::Outcome;
use etcdutl::json::{Writer, quoted};
use etcdutl::text::quote;
use prost::Message;

use super::{Printer, with_header};

impl Printer {
    /// A change of which there is nothing to say but that it was done.
    pub(crate) fn done(
        &self,
        line: String,
        header: Option<&ResponseHeader>,
        answer: &impl Message,
    ) -> Outcome {
        self.show_line(line, header, answer, true)
    }

    pub(crate) fn auth_status(&self, answer: &AuthStatusResponse) -> Outcome {
        self.show(
            || {
                let text =
                    format!("Authentication Status: {}\nAuthRevision: {}\n", answer.enabled, answer.auth_revision);
                Some(text.into_bytes())
            },
            || {
                let mut object = with_header(answer.header.as_ref());
                object.switch("enabled", answer.enabled).number("authRevision", answer.auth_revision);
                Some(object.end())
            },
            || None,
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn role_get(&self, role: &str, answer: &AuthRoleGetResponse) -> Outcome {
        self.show(
            || Some(role_simple(role, answer)),
            || {
                let mut object = with_header(answer.header.as_ref());
                object.items("perm", answer.perm.iter().map(permission_json));
                Some(object.end())
            },
            || {
                let mut text = self.header_fields(answer.header.as_ref());
                for permission in &answer.perm {
                    let _ = writeln!(text, "\"PermType\" :  {}", type_name(permission));
                    let _ = writeln!(text, "\"Key\" : {}", quote(&permission.key));
                    let _ = writeln!(text, "\"RangeEnd\" : {}", quote(&permission.range_end));
                }
                Some(text)
            },
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn role_list(&self, answer: &AuthRoleListResponse) -> Outcome {
        self.show(
            || Some(answer.roles.iter().map(|role| format!("{role}\n")).collect::<String>().into_bytes()),
            || {
                let mut object = with_header(answer.header.as_ref());
                Some(object.items("roles", answer.roles.iter().map(|role| quoted(role))).end())
            },
            || {
                let mut text = self.header_fields(answer.header.as_ref());
                let roles: Vec<String> = answer.roles.iter().map(|role| quote(role.as_bytes())).collect();
                let _ = writeln!(text, "\"Roles\" : {}", roles.join(" "));
                Some(text)
            },
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn user_get(&self, user: &str, answer: &AuthUserGetResponse) -> Outcome {
        self.show(
            || {
                let mut text = format!("User: {user}\nRoles:");
                for role in &answer.roles {
                    text.push(' ');
                    text.push_str(role);
                }
                text.push('\n');
                Some(text.into_bytes())
            },
            || {
                let mut object = with_header(answer.header.as_ref());
                Some(object.items("roles", answer.roles.iter().map(|role| quoted(role))).end())
            },
            || None,
            || Some(answer.encode_to_vec()),
        )
    }

    pub(crate) fn user_list(&self, answer: &AuthUserListResponse) -> Outcome {
        self.show(
            || Some(answer.users.iter().map(|user| format!("{user}\n")).collect::<String>().into_bytes()),
            || {
                let mut object = with_header(answer.header.as_ref());
                Some(object.items("users", answer.users.iter().map(|user| quoted(user))).end())
            },
            || None,
            || Some(answer.encode_to_vec()),
        )
    }
}

fn type_name(permission: &Permission) -> String {
    Type::try_from(permission.perm_type)
        .map_or_else(|_| permission.perm_type.to_string(), |kind| kind.as_str_name().to_owned())
}

fn permission_json(permission: &Permission) -> String {
    let mut object = Writer::object();
    object.number("permType", permission.perm_type);
    object.bytes("key", &permission.key).bytes("range_end", &permission.range_end);
    object.end()
}

fn role_simple(role: &str, answer: &AuthRoleGetResponse) -> Vec<u8> {
    let mut text = format!("Role {role}\n").into_bytes();
    let sections = [("KV Read:\n", Type::Read as i32), ("KV Write:\n", Type::Write as i32)];
    for (heading, kind) in sections {
        text.extend_from_slice(heading.as_bytes());
        let both = Type::Readwrite as i32;
        // The root role may do everything without being told so.
        if role == "root" && answer.perm.is_empty() {
            text.extend_from_slice(b"\t[, <open ended>\n");
        }
        for permission in answer.perm.iter().filter(|perm| perm.perm_type == kind || perm.perm_type == both) {
            text.push(b'\t');
            text.extend(permission_simple(permission));
            text.push(b'\n');
        }
    }
    text
}

fn permission_simple(permission: &Permission) -> Vec<u8> {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    match end {
        b"" => key.to_vec(),
        b"\0" => [b"[", key, b", <open ended>"].concat(),
        _ => {
            let mut text = [b"[", key, b", ", end, b")"].concat();
            if client::prefix_end(key) == end {
                text.extend([b" (prefix ", key, b")"].concat());
            }
            text
        }
    }
}
