//! What ARCHITECTURE.md and CONTRIBUTING.md promise about the sources, and what two files must agree on.

use luna_tests::workspace;
use std::collections::{BTreeMap, BTreeSet};

/// A crate's rooms as ARCHITECTURE.md tells them: rows in order, the rooms of one row may know each other.
fn rooms_in_architecture(heading: &str) -> Vec<Vec<String>> {
    let text = workspace::text("ARCHITECTURE.md");
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<String>> = rows
        .map(|row| {
            let names = row.split('|').nth(1).unwrap().split(',');
            names.map(|name| name.trim().trim_matches('`').to_owned()).collect()
        })
        .collect();
    assert!(rows.len() > 3, "{heading}: {rows:?}");
    rows
}

/// The files and folders right below a crate's `src`, but for its root.
fn rooms_on_disk(source: &str) -> BTreeSet<String> {
    let files = workspace::files(source);
    let rooms = files.iter().map(|path| {
        let first = path[source.len() + 1..].split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first).to_owned()
    });
    rooms.filter(|room| !matches!(room.as_str(), "lib" | "main")).collect()
}

/// A source without comments and without its tests.
fn code(path: &str) -> String {
    let text = workspace::text(path);
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part.ends_with("tests.rs"))
}

/// The first names after each `crate::`.
fn names_used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let ident = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        // `luna_crate::` is no path from the root.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(ident(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(ident(group[start..index].trim_start()));
                    start = index + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

/// Names that the crate's root lends from its rooms.
fn lent(root: &str) -> BTreeMap<String, String> {
    let text = code(root);
    let mut lent = BTreeMap::new();
    for item in text.split(';').filter_map(|item| item.trim_start().strip_prefix("pub use ")) {
        let (room, names) = item.split_once("::").expect("a path");
        if names == "*" {
            continue;
        }
        for name in names.trim_matches(|c| c == '{' || c == '}').split(',') {
            lent.insert(name.trim().to_owned(), room.to_owned());
        }
    }
    lent
}

fn check_arrows(heading: &str, source: &str, root: &str) {
    let rows = rooms_in_architecture(heading);
    let place = |room: &str| rows.iter().position(|row| row.iter().any(|name| name == room));
    let told: BTreeSet<_> = rows.iter().flatten().cloned().collect();
    assert_eq!(told, rooms_on_disk(source), "ARCHITECTURE.md and {source} name different rooms");
    let lent = lent(root);
    let mut arrows = 0;
    for path in workspace::files(source).iter().filter(|path| path.ends_with(".rs") && !is_test(path)) {
        let room = path[source.len() + 1..].split('/').next().unwrap();
        let room = room.strip_suffix(".rs").unwrap_or(room);
        let Some(own) = place(room) else { continue };
        for name in names_used(&code(path)) {
            let other = lent.get(&name).unwrap_or(&name);
            let stands = place(other).unwrap_or_else(|| panic!("{path}: `crate::{name}` is in no room"));
            assert!(stands <= own, "{path}: `{room}` uses `{other}`, which stands behind it");
            arrows += usize::from(other != room);
        }
    }
    assert!(arrows > 10, "only {arrows} arrows were found in {source}");
}

#[test]
fn arrows_between_the_rooms_of_the_library_point_one_way() {
    check_arrows("Rooms of luna-core", "luna-core/src", "luna-core/src/lib.rs");
}

#[test]
fn arrows_between_the_rooms_of_the_program_point_one_way() {
    check_arrows("Rooms of luna-cli", "luna-cli/src", "luna-cli/src/main.rs");
}

#[test]
fn arrows_between_the_rooms_of_the_c_abi_point_one_way() {
    check_arrows("Rooms of luna-ffi", "luna-ffi/src", "luna-ffi/src/lib.rs");
}

#[test]
fn names_after_crate_are_found() {
    let code = "use crate::{Error, a::{B, c}, d};\nfn f() { crate::g::h() }\nuse other_crate::x;";
    let names: Vec<_> = names_used(code).into_iter().collect();
    assert_eq!(names, ["Error", "a", "d", "g"]);
}

#[test]
fn the_crates_are_those_of_the_workspace() {
    let manifest = workspace::text("Cargo.toml");
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members: BTreeSet<_> = members.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect();
    let told: BTreeSet<_> = rooms_in_architecture("Crates").into_iter().flatten().collect();
    assert_eq!(told, members);
}

#[test]
fn every_source_begins_with_what_it_is() {
    // A module's own `tests.rs` is told by the module.
    let sources = workspace::files("").into_iter().filter(|path| path.ends_with(".rs") && !path.ends_with("/tests.rs"));
    for path in sources {
        assert!(workspace::text(&path).starts_with("//!"), "{path} does not begin with //!");
    }
}

/// What declares a function of the C ABI is no unsafe code: its body must do without.
fn without_exports(path: &str, code: String) -> String {
    if !path.starts_with("luna-ffi/src/") {
        return code;
    }
    code.replace("#[unsafe(no_mangle)]", "").replace("pub unsafe extern \"C\" fn luna_", "")
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why() {
    let architecture = workspace::text("ARCHITECTURE.md");
    let line = architecture.lines().find(|line| line.starts_with("- `unsafe` stands only in")).unwrap();
    let allowed: Vec<_> = line.split('`').skip(3).step_by(2).collect();
    assert!(allowed.len() >= 2 && allowed.iter().all(|place| place.contains('/')), "{allowed:?}");
    let mut found = 0;
    for path in workspace::sources() {
        let code = without_exports(&path, code(&path));
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words.clone().all(|word| word != "unsafe") {
            continue;
        }
        assert!(allowed.iter().any(|place| path.starts_with(place)), "{path} is no place for unsafe code");
        assert!(workspace::text(&path).contains("SAFETY:"), "{path} does not say why its unsafe code is sound");
        found += 1;
    }
    assert!(found > 0, "no unsafe code was found: is this test blind?");
}

#[test]
fn the_library_neither_prints_nor_reads_the_environment() {
    let forbidden =
        ["println!", "eprintln!", "print!(", "dbg!(", "env::var", "env::args", "TcpListener", "UnixListener"];
    for path in workspace::sources().iter().filter(|path| path.starts_with("luna-core/") && !is_test(path)) {
        let code = code(path);
        for word in forbidden {
            assert!(!code.contains(word), "{path} has {word}");
        }
    }
    for path in workspace::sources().iter().filter(|path| path.starts_with("luna-cli/")) {
        let code = code(path);
        let reads = code.contains("env::var");
        assert!(!reads || path.ends_with("/settings.rs"), "{path} reads the environment");
        let prints = code.contains("println!") || code.contains("stdout()") || code.contains("stderr()");
        assert!(!prints || path.contains("/output/"), "{path} prints");
    }
}

#[test]
fn the_changelog_is_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = workspace::text("CHANGELOG.md");
    let first = changelog.lines().find_map(|line| line.strip_prefix("## ")).unwrap();
    assert!(first.starts_with(&format!("{version} ")), "CHANGELOG.md begins with {first}, Cargo.toml has {version}");
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut links = 0;
    for path in workspace::files("").into_iter().filter(|path| path.ends_with(".md")) {
        let text = workspace::text(&path);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let target = workspace::root().join(&path).with_file_name(target);
            assert!(target.exists(), "{path} links to {link}");
            links += 1;
        }
    }
    assert!(links > 5, "only {links} links were found");
}

/// Paths of the machine that a file was made on help nobody else.
#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    let folders = ["work", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    for path in workspace::files("") {
        let Ok(text) = std::fs::read_to_string(workspace::root().join(&path)) else { continue };
        for folder in &folders {
            for (at, _) in text.match_indices(folder.as_str()) {
                // Within a longer path it is a folder of the repository or a part of an address.
                let inside =
                    text[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '>' | '}'));
                assert!(inside, "{path} names {folder}");
            }
        }
    }
}

#[test]
fn what_must_pass_runs_the_readmes_test_command() {
    let readme = workspace::text("README.md");
    let commands: Vec<_> =
        luna_tests::markdown::shell_lines(&readme).into_iter().filter(|line| line.starts_with("cargo ")).collect();
    let [demo, test] = commands.as_slice() else { panic!("the README sets up with two commands, not {commands:?}") };
    assert!(demo.contains("demo") && test.starts_with("cargo test"));
    let script = workspace::text(".ci/run");
    assert!(script.contains("grep -m1 '^cargo test' README.md") && script.contains("set -euo pipefail"));
}
