//! Scripts that complete commands and flags in a shell: the table, written as the shell's own words.

use std::fmt::Write;

use super::{Command, Exit, Flag, Invocation, Outcome, Tool, out};

/// One place in the tree: the path below the root, and what may come there.
struct Place {
    path: String,
    words: Vec<(String, String)>,
}

fn places(tool: &Tool) -> Vec<Place> {
    let mut places = Vec::new();
    collect(tool.root, &mut Vec::new(), &mut Vec::new(), &mut places);
    places
}

fn collect(command: &Command, path: &mut Vec<&'static str>, above: &mut Vec<Flag>, places: &mut Vec<Place>) {
    let depth = above.len();
    above.extend(command.persistent);
    let mut words: Vec<(String, String)> =
        command.children.iter().map(|child| (child.name.to_owned(), child.short.to_owned())).collect();
    words.extend(command.choices.iter().map(|choice| ((*choice).to_owned(), String::new())));
    for flag in command.flags.iter().chain(above.iter()) {
        words.push((format!("--{}", flag.name), flag.help.to_owned()));
    }
    words.push(("--help".into(), "show help".into()));
    places.push(Place { path: path.join(" "), words });
    for child in command.children {
        path.push(child.name);
        collect(child, path, above, places);
        path.pop();
    }
    above.truncate(depth);
}

/// The command `completion` of either tool: prints the script for the shell that its argument names.
pub fn print_completion(invocation: &Invocation) -> Outcome {
    let shell = invocation.argument(0).unwrap_or_default();
    match script(invocation.tool, &shell) {
        Some(script) => out(script),
        None => Err(Exit::error(format!("no script for {shell}"))),
    }
}

/// The script for `bash`, `zsh`, `fish` or `powershell`; `None` for any other shell.
fn script(tool: &Tool, shell: &str) -> Option<String> {
    let name = tool.root.name;
    match shell {
        "bash" => Some(bash(name, &places(tool))),
        "zsh" => Some(zsh(name, &places(tool))),
        "fish" => Some(fish(name, &places(tool))),
        "powershell" => Some(powershell(name, &places(tool))),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn list(place: &Place) -> String {
    place.words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(" ")
}

/// Follows the words that name commands, as far as the table has them.
fn bash(name: &str, places: &[Place]) -> String {
    let mut text = format!("# bash completion for {name}\n\n__{name}_words() {{\n    case \"$1\" in\n");
    for place in places {
        let _ = writeln!(text, "        {}) echo {} ;;", quoted(&place.path), quoted(&list(place)));
    }
    let _ = write!(
        text,
        "        *) return 1 ;;\n    esac\n}}\n\n\
         __{name}_complete() {{\n\
         \x20   local current=\"${{COMP_WORDS[COMP_CWORD]}}\" path='' next word index\n\
         \x20   for ((index = 1; index < COMP_CWORD; index++)); do\n\
         \x20       word=\"${{COMP_WORDS[index]}}\"\n\
         \x20       [[ $word == -* ]] && continue\n\
         \x20       next=\"${{path:+$path }}$word\"\n\
         \x20       __{name}_words \"$next\" >/dev/null && path=\"$next\"\n\
         \x20   done\n\
         \x20   COMPREPLY=($(compgen -W \"$(__{name}_words \"$path\")\" -- \"$current\"))\n\
         \x20   if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then\n\
         \x20       COMPREPLY=($(compgen -f -- \"$current\"))\n\
         \x20   fi\n\
         }}\n\n\
         complete -F __{name}_complete {name}\n"
    );
    text
}

fn zsh(name: &str, places: &[Place]) -> String {
    let mut text = format!("#compdef {name}\n\n_{name}() {{\n    local path_='' next word\n    local -a found\n");
    text.push_str("    local -A table\n    table=(\n");
    for place in places {
        let _ = writeln!(text, "        {} {}", quoted(&format!("/{}", place.path)), quoted(&list(place)));
    }
    text.push_str(
        "    )\n    for word in ${words[2,CURRENT-1]}; do\n        [[ $word == -* ]] && continue\n        \
         next=\"${path_:+$path_ }$word\"\n        (( ${+table[/$next]} )) && path_=\"$next\"\n    done\n    \
         found=(${=table[/$path_]})\n    compadd -a found || _files\n}\n\n",
    );
    let _ = writeln!(text, "compdef _{name} {name}");
    text
}

fn fish(name: &str, places: &[Place]) -> String {
    let mut text = format!("# fish completion for {name}\n\ncomplete -c {name} -e\n");
    for place in places {
        let commands: Vec<&str> = place.path.split(' ').filter(|word| !word.is_empty()).collect();
        let seen = commands
            .iter()
            .map(|command| format!("__fish_seen_subcommand_from {command}"))
            .collect::<Vec<_>>()
            .join("; and ");
        let condition = if seen.is_empty() { "__fish_use_subcommand".to_owned() } else { seen };
        for (word, help) in &place.words {
            let (kind, word) = match word.strip_prefix("--") {
                Some(flag) => ("-l", flag),
                None => ("-f -a", word.as_str()),
            };
            let condition = quoted(&condition);
            let _ = writeln!(text, "complete -c {name} -n {condition} {kind} {word} -d {}", quoted(help));
        }
    }
    text
}

fn powershell(name: &str, places: &[Place]) -> String {
    let escaped = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut text = format!(
        "Register-ArgumentCompleter -Native -CommandName {name} -ScriptBlock {{\n    \
         param($wordToComplete, $commandAst, $cursorPosition)\n    $table = @{{\n"
    );
    for place in places {
        let words: Vec<String> = place.words.iter().map(|(word, _)| escaped(word)).collect();
        let _ = writeln!(text, "        {} = @({})", escaped(&place.path), words.join(", "));
    }
    text.push_str(
        "    }\n    $path = ''\n    foreach ($element in ($commandAst.CommandElements | Select-Object -Skip 1)) {\n        \
         $word = $element.ToString()\n        if ($word.StartsWith('-')) { continue }\n        \
         $next = ($path + ' ' + $word).Trim()\n        if ($table.ContainsKey($next)) { $path = $next }\n    }\n    \
         $table[$path] | Where-Object { $_ -like \"$wordToComplete*\" } | ForEach-Object {\n        \
         [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)\n    }\n}\n",
    );
    text
}
