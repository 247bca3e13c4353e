//! Certificates, keys and lists of revoked ones: read from files, made, checked, and refused in Go's words.
//!
//! What it is: what the server and the clients of this workspace need of X.509 and TLS beside rustls itself.
//!
//! What it must not know: sockets, clocks (times are arguments, or rustls' own), flags.
//!
//! Reading order: `provider.rs` and `p521.rs` (cryptography), `files.rs` (PEM files), `leaf.rs` (what a certificate
//! says), `crl.rs`, `verify.rs` (who is trusted) and its `direct.rs`, `suites.rs` (cipher suites and versions), `own.rs` (self-signed
//! certificates), `text.rs` (errors in Go's words).

pub mod crl;
mod direct;
pub mod files;
pub mod leaf;
pub mod own;
mod p521;
mod provider;
pub mod suites;
pub mod text;
pub mod verify;

pub use provider::provider;
