//! The command line for files of a member.

fn main() {
    std::process::exit(etcdutl::cli::main(&etcdutl::command::TOOL));
}
