//! Stop strings in text that arrives in pieces. Enters: pieces. Leaves: what may be shown, and whether to end.

/// Holds back what may become a stop string.
pub(super) struct Stops<'a> {
    strings: &'a [String],
    held: String,
}

impl<'a> Stops<'a> {
    pub(super) fn new(strings: &'a [String]) -> Self {
        Self { strings, held: String::new() }
    }

    /// Takes the next piece; gives what is certain to be shown, and whether a stop string was reached.
    pub(super) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let stops = self.strings.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops.clone().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let open = stops.map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - open);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, now that nothing follows.
    pub(super) fn finish(self) -> String {
        self.held
    }
}

/// How many bytes at the end of `text` begin `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let beginnings = stop.char_indices().map(|(at, _)| &stop[..at]).filter(|beginning| text.ends_with(beginning));
    beginnings.map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let strings: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stops = Stops::new(&strings);
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, end) = stops.push(piece);
            shown.push(text);
            if end {
                return (shown, true);
            }
        }
        shown.push(stops.finish());
        (shown, false)
    }

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        assert_eq!(
            run(&["</a>"], &["x<", "/", "b>", "y"]),
            (vec!["x".into(), "".into(), "</b>".into(), "y".into(), "".into()], false)
        );
        assert_eq!(run(&["</a>"], &["x<", "/a", ">y"]), (vec!["x".into(), "".into(), "".into()], true));
        assert_eq!(run(&["é!", "\n\n"], &["caf", "é", "!"]), (vec!["caf".into(), "".into(), "".into()], true));
        assert_eq!(run(&["ab", "b"], &["xab"]), (vec!["x".into()], true));
        assert_eq!(run(&[], &["x"]), (vec!["x".into(), "".into()], false));
        assert_eq!(run(&[""], &["x"]), (vec!["x".into(), "".into()], false));
        assert_eq!(run(&["end"], &["the e"]), (vec!["the ".into(), "e".into()], false));
    }
}
