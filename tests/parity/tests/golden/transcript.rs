//! Recorded sessions: `$ command`, what it printed, lines of standard error marked `[stderr] `, `[exit N]`.

/// One command and what it left behind.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// As it was typed, pipes included.
    pub(crate) command: String,
    /// What was given on standard input.
    pub(crate) input: String,
    /// What was recorded.
    pub(crate) recorded: Left,
}

/// What a command leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Step {
    /// A command that was not recorded but must have been there.
    pub(crate) fn unrecorded(command: &str) -> Step {
        Step { command: command.into(), input: String::new(), recorded: Left::default() }
    }
}

/// The commands of a recording.
pub(crate) fn read(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let (command, input) = command.split_once("   <<").unwrap_or((command, ""));
            let input = input.trim_matches('"').replace("\\n", "\n").replace("\\\"", "\"");
            steps.push(Step { command: command.to_owned(), input, recorded: Left::default() });
            continue;
        }
        let left = &mut steps.last_mut().expect("a recording begins with a command").recorded;
        if let Some(line) = line.strip_prefix("[stderr] ") {
            left.stderr.push_str(line);
            left.stderr.push('\n');
        } else if let Some(code) = line.strip_prefix("[exit ") {
            left.code = code.trim_end_matches(']').parse().expect("a number");
        } else if let Some(line) = line.strip_suffix("⏎(no newline)") {
            left.stdout.push_str(line);
        } else {
            left.stdout.push_str(line);
            left.stdout.push('\n');
        }
    }
    steps
}
