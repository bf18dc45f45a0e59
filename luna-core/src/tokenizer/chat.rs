//! Conversations as language models were taught to read them. Enters: messages. Leaves: what the model's own template
//! makes of them, with what the template says kept apart from what people said. It must not know token ids.
//!
//! The templates are written out as Rust; a Jinja template found beside a model is not run.

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The caller.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::System, Self::User, Self::Assistant];

    /// What chat templates call it: `system`, `user` or `assistant`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MessagePart {
    /// Words.
    Text(String),
    /// A picture; the order of these is the order of the pictures handed to the model.
    Image,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown, in order.
    pub parts: Vec<MessagePart>,
}

impl ChatMessage {
    /// A turn of the caller's that is only words.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, parts: vec![MessagePart::Text(text.into())] }
    }
}

/// A stretch of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChatPiece {
    /// A token of the model's own, by its text.
    Special(&'static str),
    /// The template's words, tokenized together with the words next to them.
    Template(&'static str),
    /// Somebody's words. Special tokens written out in them are only text.
    Text(String),
    /// Where a picture goes, by the text that holds its place.
    Image(&'static str),
}

impl ChatPiece {
    /// What the model's own template would have written here.
    pub fn text(&self) -> &str {
        match self {
            Self::Special(text) | Self::Template(text) | Self::Image(text) => text,
            Self::Text(text) => text,
        }
    }
}

/// A family's template. All open the assistant's turn at the end, for the model to continue.
///
/// ```
/// use luna_core::tokenizer::{ChatFormat, ChatMessage, ChatPiece};
/// let chat = ChatFormat::Qwen.render(&[ChatMessage::user("a cat")]);
/// let text: String = chat.iter().map(ChatPiece::text).collect();
/// assert_eq!(text, "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChatFormat {
    /// Qwen3 and Qwen3-VL; with a single turn of the caller's also the fixed template of Z-Image.
    Qwen,
    /// Qwen3 told to answer without thinking first.
    QwenWithoutThinking,
    /// SmolVLM and Idefics3. A picture becomes a grid of tokens that only the model's vision part can count.
    SmolVlm,
    /// LLaVA 1.5. Pictures come before the words of their turn.
    Llava15,
}

impl ChatFormat {
    /// Writes a conversation out.
    pub fn render(self, messages: &[ChatMessage]) -> Vec<ChatPiece> {
        let mut out = Vec::new();
        match self {
            Self::Qwen | Self::QwenWithoutThinking => {
                messages.iter().for_each(|message| qwen_turn(message, &mut out));
                out.extend([ChatPiece::Special("<|im_start|>"), ChatPiece::Template("assistant\n")]);
                if self == Self::QwenWithoutThinking {
                    out.extend([ChatPiece::Special("<think>"), ChatPiece::Template("\n\n")]);
                    out.extend([ChatPiece::Special("</think>"), ChatPiece::Template("\n\n")]);
                }
            }
            Self::SmolVlm => {
                out.push(ChatPiece::Special("<|im_start|>"));
                messages.iter().for_each(|message| smol_vlm_turn(message, &mut out));
                out.push(ChatPiece::Template("Assistant:"));
            }
            Self::Llava15 => {
                out.push(ChatPiece::Special("<s>"));
                messages.iter().for_each(|message| llava_turn(message, &mut out));
                out.push(ChatPiece::Template("ASSISTANT:"));
            }
        }
        out
    }
}

fn qwen_turn(message: &ChatMessage, out: &mut Vec<ChatPiece>) {
    let role = match message.role {
        Role::System => "system\n",
        Role::User => "user\n",
        Role::Assistant => "assistant\n",
    };
    out.extend([ChatPiece::Special("<|im_start|>"), ChatPiece::Template(role)]);
    for part in &message.parts {
        match part {
            MessagePart::Text(text) => out.push(ChatPiece::Text(text.clone())),
            MessagePart::Image => out.extend([
                ChatPiece::Special("<|vision_start|>"),
                ChatPiece::Image("<|image_pad|>"),
                ChatPiece::Special("<|vision_end|>"),
            ]),
        }
    }
    out.extend([ChatPiece::Special("<|im_end|>"), ChatPiece::Template("\n")]);
}

fn smol_vlm_turn(message: &ChatMessage, out: &mut Vec<ChatPiece>) {
    let shows_first = message.parts.first() == Some(&MessagePart::Image);
    out.push(ChatPiece::Template(match (message.role, shows_first) {
        (Role::System, true) => "System:",
        (Role::System, false) => "System: ",
        (Role::User, true) => "User:",
        (Role::User, false) => "User: ",
        (Role::Assistant, true) => "Assistant:",
        (Role::Assistant, false) => "Assistant: ",
    }));
    out.extend(message.parts.iter().map(|part| match part {
        MessagePart::Text(text) => ChatPiece::Text(text.clone()),
        MessagePart::Image => ChatPiece::Image("<image>"),
    }));
    out.extend([ChatPiece::Special("<end_of_utterance>"), ChatPiece::Template("\n")]);
}

fn llava_turn(message: &ChatMessage, out: &mut Vec<ChatPiece>) {
    match message.role {
        Role::System => {}
        Role::User => out.push(ChatPiece::Template("USER: ")),
        Role::Assistant => out.push(ChatPiece::Template("ASSISTANT: ")),
    }
    for _ in message.parts.iter().filter(|part| **part == MessagePart::Image) {
        out.extend([ChatPiece::Image("<image>"), ChatPiece::Template("\n")]);
    }
    for part in &message.parts {
        if let MessagePart::Text(text) = part {
            out.extend([ChatPiece::Text(text.clone()), ChatPiece::Template(" ")]);
        }
    }
}
