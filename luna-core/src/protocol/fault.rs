//! What went wrong, as the wire tells it. Enters: an error. Leaves: its kind, number and words as JSON, and the other
//! way about. The kinds are those of the library; a reason says more to a program.

use crate::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a program can act on, beyond the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The named model is not here: register it by path or by upload.
    UnknownModel,
    /// A LoRA of the stack is not here: put it into the cache, or name it by a path.
    NeedLora,
    /// There is no such command.
    UnknownCommand,
    /// The daemon speaks another version of the protocol.
    Version,
    /// No token, or a wrong one.
    Unauthorized,
    /// The daemon's settings forbid it to clients.
    Denied,
    /// The daemon is ending and takes no new work.
    Draining,
    /// The request's deadline has passed.
    Deadline,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The kind's stable name.
    pub kind: String,
    /// The kind's stable number.
    pub code: i32,
    /// What a program can act on, beyond the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What is wrong.
    pub message: String,
    /// What would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was there instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// When to try again, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The models or LoRAs that are missing, by the names that the request gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

impl Fault {
    /// This error for this reason.
    pub fn because(reason: Reason, error: Error) -> Self {
        Self { reason: Some(reason), ..Self::from(error) }
    }

    /// The model of this name is not registered.
    pub fn unknown_model(name: &str) -> Self {
        let error = Error::new(ErrorKind::NotFound, "the daemon holds no such model")
            .expected("a name or an id that `list_models` tells")
            .found(format!("`{name}`"))
            .remedy("register it: `register_model_by_path` with a path that the daemon can read, or `register_model` with its tensors");
        Self { missing: vec![name.to_owned()], ..Self::because(Reason::UnknownModel, error) }
    }

    /// The daemon holds no LoRA of this id or name.
    pub fn need_lora(lora: &str, error: Error) -> Self {
        let error = error.remedy(
            "send it with `lora_cache_put` and name it by the id of the reply, or name a file below one of the daemon's \
             LoRA folders (`luna-cli serve --lora-folder FOLDER`)",
        );
        Self { missing: vec![lora.to_owned()], ..Self::because(Reason::NeedLora, error) }
    }

    /// Says when to try again.
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// The kind; `Internal` where a newer daemon tells one that this client does not know.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::ALL.into_iter().find(|kind| kind.name() == self.kind).unwrap_or(ErrorKind::Internal)
    }

    /// The fault that an error of a client came from, if it came from one.
    pub fn within(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl Fault {
    /// What an error says, in the wire's words.
    pub fn of(error: &Error) -> Self {
        if let Some(fault) = Self::within(error) {
            return fault.clone();
        }
        let own = |text: Option<&str>| text.map(str::to_owned);
        Self {
            kind: error.kind().name().to_owned(),
            code: error.kind().code(),
            reason: None,
            message: error.message().to_owned(),
            expected: own(error.expectation()),
            found: own(error.finding()),
            remedy: own(error.advice()),
            retry_after_ms: None,
            missing: Vec::new(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let mut error = Self::new(fault.kind(), fault.message.clone());
        if let Some(text) = &fault.expected {
            error = error.expected(text);
        }
        if let Some(text) = &fault.found {
            error = error.found(text);
        }
        if let Some(text) = &fault.remedy {
            error = error.remedy(text);
        }
        error.source(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
