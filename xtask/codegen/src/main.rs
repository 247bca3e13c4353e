//! Writes the generated files to where they are checked in.

fn main() -> anyhow::Result<()> {
    let target = codegen::target();
    std::fs::create_dir_all(&target)?;
    let files = codegen::generate()?;
    for entry in std::fs::read_dir(&target)? {
        let path = entry?.path();
        if path.file_name().and_then(|n| n.to_str()).is_none_or(|n| !files.contains_key(n)) {
            std::fs::remove_file(path)?;
        }
    }
    for (name, text) in files {
        std::fs::write(target.join(name), text)?;
    }
    Ok(())
}
