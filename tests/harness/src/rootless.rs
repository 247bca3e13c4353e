//! Root's rights over networks, for tests that somebody else runs: in a user namespace, where the system permits that.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Tells the second run from the first.
const MARK: &str = "MAINSTAY_TEST_IN_NAMESPACE";

/// Runs the present test once more as root of a user namespace, if whoever runs it is not root. True if that was done:
/// the test has passed, and is over. False where it is for the present process to go on.
///
/// Panics when the second run fails.
pub fn ran_in_a_namespace() -> bool {
    // SAFETY: both take nothing and cannot fail.
    #[allow(unsafe_code, reason = "std does not know who runs a process")]
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if user == 0 || std::env::var_os(MARK).is_some() {
        return false;
    }
    let thread = std::thread::current();
    // With one thread for all tests that is `main`, which says nothing.
    let Some(test) = thread.name().filter(|name| *name != "main") else { return false };
    let mut works = Command::new("true");
    as_root(&mut works, user, group);
    if !works.status().is_ok_and(|status| status.success()) {
        return false;
    }
    let mut command = Command::new(std::env::current_exe().expect("a running test has a path"));
    command.args([test, "--exact", "--nocapture"]).env(MARK, "1").stdin(Stdio::null());
    as_root(&mut command, user, group);
    let status = command.status().expect("it has just worked");
    assert!(status.success(), "{test}, in a user namespace: {status}");
    true
}

/// Has a program run as root of a namespace in which there is this user alone.
#[allow(unsafe_code, reason = "std knows no namespaces")]
fn as_root(command: &mut Command, user: libc::uid_t, group: libc::gid_t) {
    let text = |text: String| CString::new(text).expect("there is no NUL in it");
    let files = [
        (text("/proc/self/setgroups".into()), "deny".to_owned()),
        (text("/proc/self/gid_map".into()), format!("0 {group} 1")),
        (text("/proc/self/uid_map".into()), format!("0 {user} 1")),
    ];
    let enter = move || {
        let check = |done: bool| if done { Ok(()) } else { Err(std::io::Error::last_os_error()) };
        // SAFETY: as below.
        check(unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0)?;
        for (path, content) in &files {
            // SAFETY: the path ends with NUL, the content is as long as it says, the descriptor is closed.
            unsafe {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                check(file >= 0)?;
                check(libc::write(file, content.as_ptr().cast(), content.len()) == content.len().cast_signed())?;
                libc::close(file);
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec there are system calls only, on texts that were made before.
    unsafe {
        command.pre_exec(enter);
    }
}
