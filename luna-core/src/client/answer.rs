//! Answers. Enters: messages of a connection. Leaves: a command's reply with what every reply tells, or the fault.

use super::connection::Connection;
use crate::{
    Error, ErrorKind, Result,
    protocol::{Cancel, Event, Message, ReplyHead, Role},
};
use serde::de::DeserializeOwned;
use std::{marker::PhantomData, sync::Arc};

/// A reply.
#[derive(Debug)]
pub struct Answer<R> {
    /// The command's own fields.
    pub reply: R,
    /// What every reply tells: waiting, work, fallbacks.
    pub head: ReplyHead,
    /// The message, with its tensors.
    pub message: Message,
}

impl<R: DeserializeOwned> Answer<R> {
    /// Reads a reply.
    pub(super) fn read(message: Message) -> Result<Self> {
        let wrong = |error: serde_json::Error| {
            Error::new(ErrorKind::Internal, format!("the daemon's reply cannot be read: {error}")).source(error)
        };
        let mut head: ReplyHead = serde_json::from_str(message.json()).map_err(wrong)?;
        match head.error.take() {
            Some(fault) => Err(fault.into()),
            None => Ok(Self { reply: serde_json::from_str(message.json()).map_err(wrong)?, head, message }),
        }
    }
}

/// A request under way. Dropping it gives up the answer, not the request; see [`Pending::cancel`].
#[must_use = "the answer is lost if nobody waits for it"]
pub struct Pending<R> {
    connection: Arc<Connection>,
    id: u64,
    reply: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> Pending<R> {
    pub(super) fn new(connection: Arc<Connection>, id: u64) -> Self {
        Self { connection, id, reply: PhantomData }
    }

    /// The number that the request bears on its connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Asks the daemon to cancel it. The answer still comes, and tells.
    ///
    /// # Errors
    /// `Io` if the connection is lost.
    pub fn cancel(&self) -> Result<()> {
        self.connection.send_and_forget(&Cancel { request: self.id })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The daemon's fault; `Io` if the connection is lost.
    pub fn wait(self) -> Result<Answer<R>> {
        self.wait_with(|_| {})
    }

    /// Waits for the answer and hears of events meanwhile.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn wait_with(self, listener: impl Fn(&Event)) -> Result<Answer<R>> {
        loop {
            let message = self.connection.receive(self.id)?;
            match message.role() {
                Role::Reply => return Answer::read(message),
                // An event of a kind that this client does not know is none of its business.
                Role::Event => {
                    if let Ok(event) = serde_json::from_str(message.json()) {
                        listener(&event);
                    }
                }
                Role::Request => return Err(Error::new(ErrorKind::Internal, "the daemon sent a request")),
            }
        }
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        self.connection.forget(self.id);
    }
}
