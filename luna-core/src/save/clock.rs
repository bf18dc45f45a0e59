//! Dates for file names. Enters: a moment and the distance of local time from UTC. Leaves: text. It asks no clock and
//! no time zone; whoever hands in a job says what time it is there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment with the local time's distance from UTC, as it stands in file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    unix_seconds: i64,
    offset_minutes: i32,
}

impl Timestamp {
    /// The moment `time`, where clocks are `offset_minutes` ahead of UTC (behind it, if negative).
    pub fn new(time: SystemTime, offset_minutes: i32) -> Self {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let unix_seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => seconds(since),
            Err(before) => -seconds(before.duration()),
        };
        // Four-digit years are all that a name has room for.
        Self { unix_seconds: unix_seconds.clamp(0, 253_402_214_400), offset_minutes: offset_minutes.clamp(-1440, 1440) }
    }

    /// The current moment in UTC.
    pub fn now_utc() -> Self {
        Self::new(SystemTime::now(), 0)
    }

    /// Seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.unix_seconds
    }

    /// Minutes that local clocks are ahead of UTC.
    pub fn offset_minutes(self) -> i32 {
        self.offset_minutes
    }

    /// Replaces `YYYY`, `mm` (month), `dd`, `HH`, `MM` (minute) and `SS` in `pattern`; the rest stays.
    pub(super) fn format(self, pattern: &str) -> String {
        let local = (self.unix_seconds + i64::from(self.offset_minutes) * 60).max(0);
        let (days, seconds) = (local / 86_400, local % 86_400);
        let (year, month, day) = civil(days);
        let fields = [
            ("YYYY", year, 4),
            ("mm", month, 2),
            ("dd", day, 2),
            ("HH", seconds / 3600, 2),
            ("MM", seconds / 60 % 60, 2),
            ("SS", seconds % 60, 2),
        ];
        let mut out = String::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            match fields.iter().find(|(name, _, _)| rest.starts_with(name)) {
                Some(&(name, value, width)) => {
                    out.push_str(&format!("{value:0width$}"));
                    rest = &rest[name.len()..];
                }
                None => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        out
    }
}

/// Year, month and day of a day counted from 1 January 1970, in the Gregorian calendar: years are taken to begin in
/// March, so that the leap day comes last, and eras of 400 years all have the same days.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, offset: i32) -> String {
        Timestamp::new(UNIX_EPOCH + Duration::from_secs(seconds), offset).format("YYYY-mm-dd.HH.MM.SS")
    }

    #[test]
    fn known_moments_have_their_dates() {
        assert_eq!(at(0, 0), "1970-01-01.00.00.00");
        assert_eq!(at(951_782_400, 0), "2000-02-29.00.00.00");
        assert_eq!(at(1_000_000_000, 0), "2001-09-09.01.46.40");
        assert_eq!(at(1_767_225_599, 0), "2025-12-31.23.59.59");
        assert_eq!(at(1_767_225_599, 90), "2026-01-01.01.29.59");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28.23.59.59");
        assert_eq!(at(4_107_542_400, -60), "2100-02-28.23.00.00");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for day in 1..200_000 {
            let next = civil(day);
            let follows = next == (last.0, last.1, last.2 + 1)
                || next == (last.0, last.1 + 1, 1)
                || next == (last.0 + 1, 1, 1) && last.1 == 12 && last.2 == 31;
            assert!(follows, "{last:?} {next:?}");
            last = next;
        }
    }

    #[test]
    fn what_is_no_field_stays() {
        let time = Timestamp::new(UNIX_EPOCH, 0);
        assert_eq!(time.format("é YYYYY m SSS"), "é 1970Y m 00S");
    }
}
