//! Numbers as Python's `float()` reads them, because that is what reads a prompt's weights in ComfyUI. Enters: text.
//! Leaves: a number, possibly infinite or not a number, or nothing. It must not know what the number is for.

/// The zeros of the decimal digits outside ASCII (Unicode 14, as in Python 3.11); the other nine follow each.
const ZEROS: [u32; 65] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0, 0xF20,
    0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0,
    0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0,
    0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0,
    0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// What `float(text)` gives; `None` where it raises `ValueError`.
///
/// Beyond Rust's own syntax it takes space around the number, underscores between digits and the decimal digits of
/// every script. `inf`, `infinity` and `nan` are numbers, `1e999` is infinity.
pub(super) fn python_float(text: &str) -> Option<f64> {
    // `trim` would take U+001C..=U+001F as well as Python's `str.strip` does, but `float()` does not.
    let text = text.trim_matches(char::is_whitespace);
    let mut ascii = String::with_capacity(text.len().min(64));
    let mut after_digit = false;
    let mut after_underscore = false;
    for c in text.chars() {
        let c = ascii_digit(c)?;
        if (c == '_' && !after_digit) || (after_underscore && !c.is_ascii_digit()) {
            return None;
        }
        after_underscore = c == '_';
        after_digit = c.is_ascii_digit();
        if !after_underscore {
            ascii.push(c);
        }
    }
    if after_underscore { None } else { ascii.parse().ok() }
}

/// The character itself if it is ASCII, the digit it means if it is one, else nothing.
fn ascii_digit(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(c);
    }
    let zero = ZEROS[..ZEROS.partition_point(|&zero| zero <= u32::from(c))].last()?;
    char::from_digit(u32::from(c) - zero, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_python_reads() {
        for (text, number) in [
            ("1.2", 1.2),
            (" \u{3000}1.5\u{2003}\n", 1.5),
            ("\u{85}1", 1.0),
            ("-1", -1.0),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("1_000", 1000.0),
            ("1e1_0", 1e10),
            ("1e+5", 1e5),
            ("１.２", 1.2),
            ("١٢", 12.0),
            ("1e999", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("InF", f64::INFINITY),
        ] {
            assert_eq!(python_float(text), Some(number), "{text:?}");
        }
        assert!(python_float("-NaN").unwrap().is_nan());
    }

    #[test]
    fn refuses_what_python_refuses() {
        for text in [
            "",
            " ",
            ".",
            "1e",
            "0x10",
            "1,2",
            "1 2",
            "_1",
            "1_",
            "1__0",
            "1_.0",
            "1._0",
            "infi",
            "in_f",
            "nan(1)",
            "--1",
            "+ 1",
            "1d5",
            "1f",
            "\u{1c}1",
            "1\u{1f}",
            "\u{200b}1",
            "1.5\0",
            "½",
            "一",
        ] {
            assert_eq!(python_float(text), None, "{text:?}");
        }
    }
}
