//! `include/luna.h` against the sources, its documentation, and what may never be taken away.

use crate::built;
use luna_tests::workspace;
use std::{collections::BTreeSet, process::Command};

#[path = "../../examples/header.rs"]
mod generator;

#[test]
fn the_header_is_what_the_sources_say() {
    let generated = generator::generate().unwrap();
    assert!(
        workspace::text("include/luna.h") == generated,
        "include/luna.h is out of date: cargo run -p luna-ffi --example header > include/luna.h"
    );
}

#[test]
fn every_item_of_the_header_is_documented() {
    let header = workspace::text("include/luna.h");
    let lines: Vec<_> = header.lines().collect();
    let mut documented = 0;
    for (at, line) in lines.iter().enumerate().skip_while(|(_, line)| !line.starts_with("#define LUNA_H")).skip(1) {
        let text = line.trim();
        // A declaration begins at the margin, a field or a number four spaces in.
        let inside = line.starts_with("    ") && !line.starts_with("     ");
        let item =
            text.starts_with("typedef") && !text.starts_with("typedef int32_t") && !text.starts_with("typedef enum")
                || text.starts_with("enum ")
                || text.starts_with("#define LUNA_")
                || text.contains("luna_") && text.contains('(') && !line.starts_with(' ') && !text.starts_with('*')
                || inside && (text.ends_with(';') || text.ends_with(','));
        let comment = text.starts_with('/') || text.starts_with('*') || text.starts_with(": int32_t");
        if !item || comment {
            continue;
        }
        assert!(lines[at - 1].trim().ends_with("*/"), "line {}: {line} is not documented", at + 1);
        documented += 1;
    }
    assert!(documented > 200, "only {documented} items were found");
}

/// Functions that the library exports.
#[cfg(target_os = "linux")]
fn exported() -> BTreeSet<String> {
    let listed = built::run(Command::new("nm").args(["-D", "--defined-only"]).arg(built::library()));
    let names = listed.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.filter(|name| name.starts_with("luna_")).map(str::to_owned).collect()
}

/// `NAME = NUMBER` for every enum and constant of the header.
fn numbers(header: &str) -> BTreeSet<String> {
    let constants = header.lines().map(str::trim).filter(|line| line.starts_with("LUNA_") && line.contains(" = "));
    let defined = header.lines().filter_map(|line| line.strip_prefix("#define "));
    // The ABI's own number is there to change.
    let defined = defined.filter(|line| line.contains(' ') && !line.starts_with("LUNA_ABI_"));
    let defined = defined.map(|line| line.replacen(' ', " = ", 1));
    constants.map(|line| line.trim_end_matches(',').to_owned()).chain(defined).collect()
}

fn committed(file: &str) -> BTreeSet<String> {
    let text = workspace::text(&format!("luna-ffi/tests/abi/{file}"));
    text.lines().map(str::to_owned).collect()
}

fn only_grows(what: &str, file: &str, now: &BTreeSet<String>) {
    let before = committed(file);
    assert!(before.len() > 10, "{file}: {before:?}");
    let gone: Vec<_> = before.difference(now).collect();
    assert!(gone.is_empty(), "{what} were taken away, which breaks programs: {gone:?}");
    let new: Vec<_> = now.difference(&before).collect();
    assert!(new.is_empty(), "new {what}: add them to luna-ffi/tests/abi/{file}: {new:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn exported_functions_only_grow_and_are_those_of_the_header() {
    let header = workspace::text("include/luna.h");
    let exported = exported();
    only_grows("functions", "functions.txt", &exported);
    for name in &exported {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
}

#[test]
fn numbers_only_grow() {
    only_grows("numbers", "numbers.txt", &numbers(&workspace::text("include/luna.h")));
}

/// Structs with their fields, from the header.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let field = |line: &str| {
        let name = line.trim().trim_end_matches(';').rsplit([' ', '*']).next().unwrap();
        name.split('[').next().unwrap().to_owned()
    };
    let mut structs: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = false;
    for line in header.lines() {
        if let Some(rest) = line.strip_prefix("typedef struct ") {
            structs.push((rest.trim_end_matches(" {").to_owned(), Vec::new()));
            open = true;
        } else if line.starts_with('}') {
            open = false;
        } else if open && line.trim().ends_with(';') {
            structs.last_mut().unwrap().1.push(field(line));
        }
    }
    assert!(structs.len() > 20, "{structs:?}");
    structs
}

/// Where every field lies, as a C compiler has it: what programs were built with stays so.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn fields_only_grow_and_stay_where_they_are() {
    let mut program = String::from("#include <luna.h>\n#include <stdio.h>\nint main(void) {\n");
    for (name, fields) in structs(&workspace::text("include/luna.h")) {
        for field in fields {
            program += &format!("printf(\"{name}.{field} %d\\n\", (int)offsetof({name}, {field}));\n");
        }
    }
    program += "return 0;\n}\n";
    let folder = tempfile::tempdir().unwrap();
    let (source, built) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    let mut compiler = built::compiler(built::present(&["gcc", "clang", "cc"])[0], "c99");
    built::run(compiler.arg(source).arg("-o").arg(&built));
    let layout = built::run(&mut Command::new(built)).lines().map(str::to_owned).collect();
    only_grows("fields", "fields.txt", &layout);
}
