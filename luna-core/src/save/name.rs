//! Names that every system takes. Enters: text from templates, prompts and paths. Leaves: a relative path whose parts
//! are valid on Linux, macOS and Windows and lead nowhere but down, or a refusal. It never looks at the disk.

use crate::{Error, ErrorKind, Result};

/// Bytes of one part. File systems take 255; what is left is for a counter, a suffix and an extension.
const MOST_BYTES: usize = 120;
const MOST_PARTS: usize = 32;

/// Replaces in a value whatever could part a path or trip a system. What is left holds no separator.
pub(super) fn without_separators(text: &str) -> String {
    text.chars().map(|character| if is_unsafe(character) { '_' } else { character }).collect()
}

/// The parts of a value that is a path of its own, such as a model's; `\` counts as `/`.
pub(super) fn path_value(text: &str) -> Vec<String> {
    text.split(['/', '\\']).filter(|part| !part.is_empty()).map(without_separators).collect()
}

/// Not allowed on Windows, or invisible and able to make a name look like another.
fn is_unsafe(character: char) -> bool {
    matches!(character, '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*')
        || character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A relative path whose parts are safe, from text in which `/` and `\` part them.
///
/// # Errors
/// `InvalidInput` for an absolute path, a part `..`, a device name of Windows, or nothing at all.
pub(super) fn relative(text: &str) -> Result<Vec<String>> {
    let refused = |message: &str| Error::new(ErrorKind::InvalidInput, message.to_owned()).found(format!("{text:?}"));
    let drive = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && text.as_bytes().get(1) == Some(&b':');
    if text.starts_with(['/', '\\']) || drive {
        return Err(refused("pictures are saved below the output folder only").expected("a relative path"));
    }
    let mut parts = Vec::new();
    for part in text.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".") {
        if part.trim() == ".." {
            return Err(refused("pictures are saved below the output folder only").expected("a path without \"..\""));
        }
        parts.push(component(part).ok_or_else(|| {
            refused("a name in the path is reserved on Windows").remedy("choose another name, or put text around it")
        })?);
    }
    if parts.len() > MOST_PARTS {
        return Err(refused("the path is too deep").expected(format!("at most {MOST_PARTS} parts")));
    }
    Ok(parts)
}

/// One part made safe; `None` for a device name.
fn component(part: &str) -> Option<String> {
    let safe = cut(without_separators(part), MOST_BYTES);
    // Windows drops dots and spaces at the end; a dot at the beginning would hide the file.
    let trimmed = safe.trim_matches(' ').trim_end_matches(['.', ' ']);
    let safe = match trimmed.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if trimmed.is_empty() => "_".to_owned(),
        None => trimmed.to_owned(),
    };
    (!is_reserved(&safe)).then_some(safe)
}

/// No more than `most` bytes, in whole characters.
pub(super) fn cut(mut text: String, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Device names stay device names under any extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$") {
        return true;
    }
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    port.is_some_and(|port| {
        matches!(port.chars().collect::<Vec<_>>()[..], [digit] if digit.is_ascii_digit() || "¹²³".contains(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ways_out_and_devices_are_refused() {
        for text in [
            "/etc/x",
            "\\\\server\\x",
            "C:\\x",
            "c:x",
            "..",
            "a/../b",
            "a/.. /b",
            "a\\..\\b",
            "CON",
            "a/nul.png",
            "com1",
            "LPT9.txt",
            "aux ",
            "COM¹",
            "conin$",
        ] {
            assert_eq!(relative(text).expect_err(text).kind(), ErrorKind::InvalidInput, "{text}");
        }
        assert!(relative(&"a/".repeat(33)).is_err());
    }

    #[test]
    fn what_remains_is_safe_everywhere() {
        for (text, parts) in [
            ("a//b/./c", &["a", "b", "c"][..]),
            ("what? a <tag>: \"x\"*", &["what_ a _tag__ _x__"]),
            ("name. . ", &["name"]),
            (".hidden", &["_hidden"]),
            ("tab\there", &["tab_here"]),
            ("...", &["_"]),
            ("console", &["console"]),
            ("com10", &["com10"]),
            ("gnp.\u{202e}exe", &["gnp._exe"]),
            ("", &[]),
        ] {
            assert_eq!(relative(text).unwrap(), parts, "{text:?}");
        }
        let long = relative(&"é".repeat(300)).unwrap();
        assert!(long[0].len() <= MOST_BYTES && long[0].chars().all(|character| character == 'é'));
    }

    proptest! {
        #[test]
        fn no_text_leads_out(text in any::<String>()) {
            let Ok(parts) = relative(&text) else { return Ok(()) };
            for part in parts {
                prop_assert!(!part.is_empty() && part.len() <= MOST_BYTES + 1 && part != "." && part != "..");
                prop_assert!(!part.chars().any(is_unsafe), "{part:?}");
                prop_assert!(!part.ends_with(['.', ' ']) && !part.starts_with(['.', ' ']));
                prop_assert!(!is_reserved(&part));
                // A safe part stays as it is.
                prop_assert_eq!(relative(&part).unwrap(), [part]);
            }
        }

        #[test]
        fn values_bring_no_separators(text in any::<String>()) {
            prop_assert!(!without_separators(&text).contains(['/', '\\']));
        }
    }
}
