//! TLS to Go's server: certificates of both sides, right and wrong.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Killed, compare, listen, serve};

/// An authority, another one that nobody trusts, a server's certificate, one for another name, a client's, and a
/// client's of the other authority.
const MAKE: &str = r#"
set -e
sign() {
  openssl ecparam -name prime256v1 -genkey -noout -out $1.key
  openssl req -new -key $1.key -subj "/CN=$3" -out $1.csr
  printf "$4" > $1.ext
  openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days 30 -extfile $1.ext -out $1.crt
}
for ca in ca other; do
  openssl ecparam -name prime256v1 -genkey -noout -out $ca.key
  openssl req -x509 -new -key $ca.key -subj "/CN=$ca" -days 30 -out $ca.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
done
sign server ca localhost "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
sign elsewhere ca elsewhere "subjectAltName=DNS:elsewhere\nextendedKeyUsage=serverAuth,clientAuth\n"
sign client ca root "extendedKeyUsage=clientAuth\n"
sign stranger other root "extendedKeyUsage=clientAuth\n"
"#;

/// `false`, said loudly, without openssl.
fn make(folder: &Path) -> bool {
    let mut command = Command::new("bash");
    command.args(["-c", MAKE]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let made = command.status().is_ok_and(|status| status.success());
    if !made {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "certificates cannot be made: is openssl there?");
        eprintln!("SKIPPED: certificates cannot be made: is openssl there?");
    }
    made
}

/// A server that listens with TLS, once it answers.
fn with_tls(folder: &Path, name: &str, certificate: &str, more: &[&str]) -> (Killed, u16) {
    let port = harness::free_port();
    let (cert, key) = (format!("--cert-file={certificate}.crt"), format!("--key-file={certificate}.key"));
    let mut flags = vec![cert.as_str(), key.as_str()];
    flags.extend(more);
    let server = listen(folder, name, &format!("https://127.0.0.1:{port}"), &flags);
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "{name} does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    (server, port)
}

#[test]
fn certificates_right_and_wrong() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let folder = scratch.path();
    if !make(folder) {
        return;
    }
    let Some(member) = serve(folder, "plain") else { return };
    let plain = member.endpoint();
    let (_one, tls) = with_tls(folder, "tls", "server", &[]);
    let (_two, both) = with_tls(folder, "both", "server", &["--client-cert-auth", "--trusted-ca-file=ca.crt"]);
    let (_three, named) = with_tls(folder, "named", "elsewhere", &[]);
    let own = "--cacert=ca.crt --cert=client.crt --key=client.key";
    let lines = [
        format!("--endpoints=https://127.0.0.1:{tls} --cacert=ca.crt put a 1"),
        format!("--endpoints=127.0.0.1:{tls} --cacert=ca.crt get a"),
        format!("--endpoints=https://localhost:{tls} --cacert=ca.crt get a"),
        format!("--endpoints=127.0.0.1:{tls} --insecure-skip-tls-verify --insecure-transport=false get a"),
        format!("--endpoints=https://127.0.0.1:{tls} --insecure-skip-tls-verify get a"),
        format!("--endpoints=127.0.0.1:{tls} --insecure-skip-tls-verify get a"),
        format!("--endpoints=https://127.0.0.1:{tls} --command-timeout=1s get a"),
        format!("--endpoints=127.0.0.1:{tls} --command-timeout=1s get a"),
        format!("--endpoints=http://127.0.0.1:{tls} --command-timeout=1s --cacert=ca.crt get a"),
        format!("--endpoints=https://127.0.0.1:{tls} --cacert=other.crt --command-timeout=1s get a"),
        format!("--endpoints=https://127.0.0.1:{tls} --cacert=ca.crt watch a --rev=1 -w table"),
        format!("--endpoints=https://127.0.0.1:{both} {own} put a 1"),
        format!("--endpoints=https://127.0.0.1:{both} {own} endpoint health --cluster"),
        format!("--endpoints=https://127.0.0.1:{both} {own} member list"),
        format!(
            "ETCDCTL_CACERT=ca.crt ETCDCTL_CERT=client.crt ETCDCTL_KEY=client.key \
             ETCDCTL_ENDPOINTS=https://127.0.0.1:{both} get a"
        ),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --command-timeout=1s get a"),
        format!(
            "--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --cert=stranger.crt --key=stranger.key \
             --command-timeout=1s get a"
        ),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --cert=client.crt get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --key=client.key get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --cert=client.crt --key=server.key get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=nofile get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --cert=nofile --key=client.key get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --cert=client.ext --key=client.key get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert=ca.crt --cert=client.crt --key=client.ext get a"),
        format!("--endpoints=https://127.0.0.1:{both} --cacert= get a"),
        format!("--endpoints=https://127.0.0.1:{named} --cacert=ca.crt --command-timeout=1s get a"),
        format!("--endpoints=https://localhost:{named} --cacert=ca.crt --command-timeout=1s get a"),
        format!("--endpoints=https://127.0.0.1:{named} --cacert=ca.crt --insecure-skip-tls-verify get a"),
        format!("--endpoints=https://{plain} --cacert=ca.crt --command-timeout=1s get a"),
    ];
    compare(folder, &lines);
}
