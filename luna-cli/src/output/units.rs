//! Numbers as people read them.

/// `512 B`, `3.9 MiB`, `6.46 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = ((bytes.ilog2() / 10) as usize).min(UNITS.len());
    format!("{} {}", three_digits(bytes as f64 / 1024f64.powi(power as i32)), UNITS[power - 1])
}

/// `83.7 million`, `2.57 billion`, `12 345`.
pub fn count(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000_000 => format!("{} million", three_digits(count as f64 / 1e6)),
        _ => format!("{} billion", three_digits(count as f64 / 1e9)),
    }
}

/// `4.81 s`, `12.3 ms`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", three_digits(seconds * 1e3)) } else { format!("{} s", three_digits(seconds)) }
}

/// Three digits that count, or all those before the point.
pub fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3 << 29, "1.50 GiB")] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!((count(512).as_str(), count(83_653_863).as_str()), ("512", "83.7 million"));
        assert_eq!((seconds(0.01234).as_str(), seconds(61.27).as_str()), ("12.3 ms", "61.3 s"));
    }
}
