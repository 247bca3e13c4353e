//! The command line for files of a member, and what it shares with the command line for clusters.
//!
//! Must not know: the network.
//!
//! Reading order: [`cli`] (a table of commands and flags, and how a command line is read against it), then what
//! output is made of: [`json`], [`table`], [`quantity`], [`text`]; then `command/`, one file per command.

// A tool for people: it waits and measures.
#![allow(clippy::disallowed_methods, reason = "took = ... is printed")]

pub mod cli;
pub mod command;
mod database;
pub mod json;
mod log;
pub mod quantity;
pub mod restore;
pub mod table;
pub mod text;
