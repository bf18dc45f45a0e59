//! Words and pictures to ids, as the family's chat template writes them. Enters: messages, sizes of pictures in tokens.
//! Leaves: ids with a place for each token of a picture. What people say never becomes a special token.

use crate::{
    Error, ErrorKind, Limits, Result,
    limits::check_at_most,
    tokenizer::{ChatFormat, ChatMessage, ChatToken, FileTokenizer, MessagePart, Role},
};

/// A single turn: all pictures, then words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// Instructions that stand above the conversation.
    pub system: Option<String>,
    /// What is asked.
    pub prompt: String,
}

impl Question {
    /// A question without instructions.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { system: None, prompt: prompt.into() }
    }

    /// The conversation it begins, with this many pictures before its words.
    pub fn messages(&self, pictures: usize) -> Vec<ChatMessage> {
        let system = self
            .system
            .iter()
            .map(|text| ChatMessage { role: Role::System, parts: vec![MessagePart::Text(text.clone())] });
        let mut parts = vec![MessagePart::Image; pictures];
        parts.push(MessagePart::Text(self.prompt.clone()));
        system.chain([ChatMessage { role: Role::User, parts }]).collect()
    }
}

/// Ids of a conversation. `tokens` says how many each picture becomes, `picture` is the id that holds their places.
pub(super) fn encode(
    tokenizer: &FileTokenizer,
    format: ChatFormat,
    messages: &[ChatMessage],
    tokens: &[usize],
    picture: u32,
) -> Result<Vec<u32>> {
    let parts = || messages.iter().flat_map(|message| &message.parts);
    let bytes: usize = parts().map(|part| if let MessagePart::Text(text) = part { text.len() } else { 0 }).sum();
    let limits = Limits::default();
    check_at_most("bytes in the prompt", bytes as u64, limits.prompt_bytes as u64)?;
    check_places(parts().filter(|part| **part == MessagePart::Image).count(), tokens.len())?;
    let total: u64 = tokens.iter().map(|&tokens| tokens as u64).sum();
    check_at_most("tokens of pictures", total, limits.prompt_tokens as u64)?;
    let mut ids = Vec::new();
    let mut tokens = tokens.iter();
    for token in tokenizer.encode_chat(&format.render(messages))? {
        match token {
            ChatToken::Id(id) => ids.push(id),
            ChatToken::Image => {
                let count = tokens.next().copied().unwrap_or_default();
                ids.extend(std::iter::repeat_n(picture, count));
            }
        }
    }
    Ok(ids)
}

fn check_places(places: usize, pictures: usize) -> Result<()> {
    if places == pictures {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "the prompt has places for another number of pictures than there are")
        .expected(format!("{pictures} places, one for each picture"))
        .found(places.to_string()))
}
