//! LoRA tags. Enters: a prompt. Leaves: the prompt without its `<lora:name:model:clip>` tags, and what they said. It
//! must not know where LoRA files are kept.

/// One `<lora:name:model:clip>`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraTag {
    /// As written, without white space around it.
    pub name: String,
    /// Strength for the diffusion model. Finite.
    pub model: f64,
    /// Strength for the text encoders. Finite.
    pub clip: f64,
}

/// What [`extract_lora_tags`] found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoraTags {
    /// The prompt without the tags; what stood around them is untouched.
    pub prompt: String,
    /// In order; a name may come twice.
    pub tags: Vec<LoraTag>,
    /// Tags that could not be read, as written. They are gone from the prompt too, unless they never end.
    pub malformed: Vec<String>,
}

const OPENING: &str = "<lora:";

/// Takes `<lora:name:model:clip>` tags out of a prompt.
///
/// `<lora:name:w>` uses `w` for both strengths, `<lora:name>` uses 1. Note the order: A1111 writes the text encoders'
/// strength first where it writes two.
///
/// ```
/// use luna_core::tokenizer::extract_lora_tags;
/// let found = extract_lora_tags("a cat <lora:ink:0.8:0.5>, sketch<lora:oops:x>");
/// assert_eq!(found.prompt, "a cat , sketch");
/// assert_eq!((found.tags[0].name.as_str(), found.tags[0].model, found.tags[0].clip), ("ink", 0.8, 0.5));
/// assert_eq!(found.malformed, ["<lora:oops:x>"]);
/// ```
pub fn extract_lora_tags(prompt: &str) -> LoraTags {
    let mut out = LoraTags::default();
    let mut rest = prompt;
    while let Some(start) = rest.find(OPENING) {
        let (before, tag) = rest.split_at(start);
        out.prompt.push_str(before);
        let body = &tag[OPENING.len()..];
        // A tag ends before the next one begins, so that one forgotten `>` does not swallow the prompt.
        let Some(length) = body.find(['<', '>']).filter(|&end| body.as_bytes()[end] == b'>') else {
            out.malformed.push(OPENING.to_owned() + body.split(['<', '\n']).next().unwrap_or_default());
            out.prompt.push_str(OPENING);
            rest = body;
            continue;
        };
        match read(&body[..length]) {
            Some(tag) => out.tags.push(tag),
            None => out.malformed.push(tag[..OPENING.len() + length + 1].to_owned()),
        }
        rest = &body[length + 1..];
    }
    out.prompt.push_str(rest);
    out
}

/// Reads `name`, `name:both` or `name:model:clip`.
fn read(body: &str) -> Option<LoraTag> {
    let mut fields = body.split(':').map(str::trim);
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let mut strengths = Vec::new();
    for field in fields {
        strengths.push(field.parse::<f64>().ok().filter(|strength| (*strength as f32).is_finite())?);
    }
    let (model, clip) = match strengths[..] {
        [] => (1.0, 1.0),
        [both] => (both, both),
        [model, clip] => (model, clip),
        _ => return None,
    };
    Some(LoraTag { name, model, clip })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, model: f64, clip: f64) -> LoraTag {
        LoraTag { name: name.to_owned(), model, clip }
    }

    #[test]
    fn reads_one_two_and_no_strengths() {
        let found = extract_lora_tags("<lora:a:0.5><lora: b c : -1 : 2e0 >x<lora:d>");
        assert_eq!(found.prompt, "x");
        assert_eq!(found.tags, [tag("a", 0.5, 0.5), tag("b c", -1.0, 2.0), tag("d", 1.0, 1.0)]);
        assert!(found.malformed.is_empty());
    }

    #[test]
    fn reports_what_it_cannot_read_and_removes_it() {
        let bad =
            ["<lora:>", "<lora::1>", "<lora:a:>", "<lora:a:1:2:3>", "<lora:a:nan>", "<lora:a:1e999>", "<lora:a:x>"];
        for bad in bad {
            let found = extract_lora_tags(&format!("p {bad} q"));
            assert_eq!((found.prompt.as_str(), found.malformed), ("p  q", vec![bad.to_owned()]));
            assert!(found.tags.is_empty());
        }
    }

    #[test]
    fn a_tag_without_end_stays_and_spoils_no_other() {
        let found = extract_lora_tags("a <lora:b:1 c <lora:d:0.5> e <lora:");
        assert_eq!(found.prompt, "a <lora:b:1 c  e <lora:");
        assert_eq!(found.tags, [tag("d", 0.5, 0.5)]);
        assert_eq!(found.malformed, ["<lora:b:1 c ", "<lora:"]);
    }

    #[test]
    fn other_angle_brackets_are_text() {
        let prompt = "a < b > c <hypernet:x:1> <LORA:x:1> lora:x:1>";
        assert_eq!(extract_lora_tags(prompt), LoraTags { prompt: prompt.to_owned(), ..LoraTags::default() });
    }
}
