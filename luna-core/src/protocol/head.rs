//! What every request, reply and event carries besides its own fields.

use super::{Fault, Request, body::wrong};
use crate::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a request carries besides its command's fields, as siblings of `cmd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestHead {
    /// Chosen by the client; the answer bears it. No two requests that run at once on a connection may share one.
    pub id: u64,
    /// Milliseconds from arrival after which the client has no use for an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether events of progress are wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub progress: bool,
}

impl RequestHead {
    const KEYS: [&'static str; 3] = ["id", "deadline_ms", "progress"];

    /// The JSON of a request.
    pub fn json(&self, command: &str, fields: &impl Serialize) -> Result<String> {
        let mut map = to_map(self)?;
        map.insert("cmd".to_owned(), command.into());
        for (name, value) in to_map(fields)? {
            // An absent option is no field.
            if !value.is_null() {
                map.insert(name, value);
            }
        }
        Ok(Value::Object(map).to_string())
    }

    /// Takes a request apart. The head is given even where the request itself is wrong, so that it can be answered.
    ///
    /// # Errors
    /// `InvalidInput` where there is no id to answer to.
    pub fn parse(json: &str) -> Result<(Self, Result<Request, Fault>)> {
        let mut map: Map<String, Value> =
            serde_json::from_str(json).map_err(|error| wrong(format!("the request is no JSON object: {error}")))?;
        let own: Map<_, _> = Self::KEYS.into_iter().filter_map(|key| map.remove_entry(key)).collect();
        let head: Self = serde_json::from_value(Value::Object(own))
            .map_err(|error| wrong(format!("the request's id, deadline_ms or progress is wrong: {error}")))?;
        let command = map.remove("cmd");
        let request = match command.as_ref().and_then(Value::as_str) {
            Some(command) => Request::parse(command, map),
            None => Err(wrong("the request has no `cmd`").into()),
        };
        Ok((head, request))
    }
}

/// What every reply carries besides its command's fields.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReplyHead {
    /// The request's.
    pub id: u64,
    /// Whether it was done; if not, there is `error`.
    pub ok: bool,
    /// Milliseconds that the request waited.
    #[serde(default)]
    pub queue_ms: f64,
    /// Milliseconds that it was worked on.
    #[serde(default)]
    pub compute_ms: f64,
    /// What was done otherwise than asked for.
    #[serde(default)]
    pub fallbacks: Vec<Notice>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
}

impl ReplyHead {
    /// The JSON of a reply.
    pub fn json(&self, fields: &Map<String, Value>) -> String {
        let mut map = fields.clone();
        // Whatever a command calls its fields, these are the reply's own.
        map.extend(to_map(self).unwrap_or_default());
        Value::Object(map).to_string()
    }
}

/// Something done otherwise than asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// A stable name in snake case.
    pub name: String,
    /// Words for a person.
    pub message: String,
}

/// News of a request that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The request's.
    pub id: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// Its JSON.
    pub fn json(&self) -> String {
        Value::Object(to_map(self).unwrap_or_default()).to_string()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// So many steps are done.
    Progress {
        /// Steps done.
        done: u64,
        /// Steps in all.
        total: u64,
    },
    /// A piece of text was generated.
    Text {
        /// The token.
        token: u32,
        /// The text that it completes; may be empty.
        text: String,
    },
}

/// What says nothing is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn to_map(value: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(wrong("the fields are no object")),
        Err(error) => Err(wrong(format!("the fields cannot be written: {error}"))),
    }
}
