//! Prompt weights. Enters: a prompt with brackets. Leaves: its pieces with the weight of each, as ComfyUI weighs them.
//! It must not know tokens, embeddings or chunks.
//!
//! `(text)` weighs 1.1 times what stands around it, `(text:1.3)` weighs 1.3 whatever stands around it, `\(` and `\)`
//! are plain brackets. A bracket that is never closed is text, and so is one closed too often, after which brackets
//! are text until as many have been opened again.

use super::number::python_float;

/// A piece of the prompt and its weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    pub text: String,
    pub weight: f64,
}

/// Backslashed brackets, and what stands for them until the others have been read. A prompt that holds these control
/// characters itself gets the bracket, as it does in ComfyUI.
const ESCAPES: [(&str, &str, &str); 4] =
    [(r"\)", "\0\u{1}", ")"), (r"\(", "\0\u{2}", "("), (r"\]", "\0\u{3}", "]"), (r"\[", "\0\u{4}", "[")];

/// Which brackets mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brackets {
    /// None; backslashes before round ones still vanish. ComfyUI with weights disabled.
    Plain,
    /// Round ones. ComfyUI.
    Round,
    /// Square ones as well, dividing by 1.1, as in A1111.
    RoundAndSquare,
}

/// Reads the weights of a prompt. Takes time proportional to its length, however the brackets are nested.
pub(super) fn segments(prompt: &str, brackets: Brackets) -> Vec<Segment> {
    let escapes = if brackets == Brackets::RoundAndSquare { &ESCAPES[..] } else { &ESCAPES[..2] };
    let hidden = escapes.iter().fold(prompt.to_owned(), |text, (written, code, _)| text.replace(written, code));
    let mut segments = match brackets {
        Brackets::Plain => vec![Segment { text: hidden, weight: 1.0 }],
        Brackets::Round => round(&hidden),
        Brackets::RoundAndSquare => square(round(&hidden)),
    };
    for segment in segments.iter_mut().filter(|segment| segment.text.contains('\0')) {
        for (_, code, meant) in escapes {
            segment.text = segment.text.replace(code, meant);
        }
    }
    segments
}

/// A stretch of the prompt, in bytes, and the weight around it.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    weight: f64,
}

fn round(text: &str) -> Vec<Segment> {
    let closing = closing_brackets(text);
    let mut out = Vec::new();
    let mut pile = Vec::new();
    push_items(text, &closing, Span { start: 0, end: text.len(), weight: 1.0 }, &mut pile);
    // A pile instead of recursion: nesting costs no stack, so no prompt is too deep.
    while let Some(span) = pile.pop() {
        let item = &text[span.start..span.end];
        if item.len() >= 2 && item.starts_with('(') && item.ends_with(')') {
            push_items(text, &closing, inner(text, span), &mut pile);
        } else {
            out.push(Segment { text: item.to_owned(), weight: span.weight });
        }
    }
    out
}

/// What is between the brackets of a span, without its `:weight`, with the weight it gets.
fn inner(text: &str, span: Span) -> Span {
    let (start, end) = (span.start + 1, span.end - 1);
    // A number holds no bracket, so looking further left than the last bracket is in vain.
    let mark = text.as_bytes()[start..end].iter().rposition(|b| matches!(b, b':' | b'(' | b')'));
    let colon = mark.filter(|&at| at > 0 && text.as_bytes()[start + at] == b':');
    if let Some(colon) = colon
        && let Some(weight) = python_float(&text[start + colon + 1..end])
    {
        return Span { start, end: start + colon, weight };
    }
    Span { start, end, weight: span.weight * 1.1 }
}

/// Cuts a span into bracketed items and the text between, and puts them on the pile, the first one on top.
fn push_items(text: &str, closing: &[usize], span: Span, pile: &mut Vec<Span>) {
    let below = pile.len();
    let mut item = span.start;
    let mut surplus = 0usize; // closing brackets that nothing had opened
    let mut at = span.start;
    while let Some(found) = text[at..span.end].find(['(', ')']) {
        let here = at + found;
        at = here + 1;
        if text.as_bytes()[here] == b')' {
            surplus += 1;
        } else if surplus > 0 {
            surplus -= 1;
        } else {
            if item < here {
                pile.push(Span { start: item, end: here, ..span });
            }
            item = here;
            if closing[here] >= span.end {
                break; // never closed: the rest is one item
            }
            at = closing[here] + 1;
            pile.push(Span { start: here, end: at, ..span });
            item = at;
        }
    }
    if item < span.end {
        pile.push(Span { start: item, end: span.end, ..span });
    }
    pile[below..].reverse();
}

/// For each opening bracket where it is closed, `usize::MAX` where never (and for all other bytes).
fn closing_brackets(text: &str) -> Vec<usize> {
    let mut closing = vec![usize::MAX; text.len()];
    let mut open = Vec::new();
    for (at, bracket) in text.match_indices(['(', ')']) {
        if bracket == "(" {
            open.push(at);
        } else if let Some(start) = open.pop() {
            closing[start] = at;
        }
    }
    closing
}

/// Takes `[` and `]` out of weighed segments; what they enclose weighs 1.1 times less, as often as it is enclosed. One
/// never closed reaches to the end of the prompt, one never opened is text.
fn square(segments: Vec<Segment>) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    // How much deeper each piece of `out` is than the one before; the last entry is for the piece to come.
    let mut deeper: Vec<i32> = vec![0];
    let mut open = 0usize;
    for Segment { text, weight } in segments {
        let mut start = 0;
        let brackets = text.match_indices(['[', ']']).chain([(text.len(), "")]);
        for (at, bracket) in brackets {
            if bracket == "]" && open == 0 {
                continue;
            }
            if start < at {
                out.push(Segment { text: text[start..at].to_owned(), weight });
                deeper.push(0);
            }
            start = at + bracket.len();
            match bracket {
                "[" => (open, deeper[out.len()]) = (open + 1, deeper[out.len()] + 1),
                "]" => (open, deeper[out.len()]) = (open - 1, deeper[out.len()] - 1),
                _ => {}
            }
        }
    }
    let mut depth = 0;
    for (segment, change) in out.iter_mut().zip(deeper) {
        depth += change;
        segment.weight /= 1.1f64.powi(depth);
    }
    out
}

#[cfg(test)]
mod tests;
