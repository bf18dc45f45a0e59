//! A request that takes a worker. Enters: a request with its tensors. Leaves: exactly one answer, whether it was done,
//! cancelled while it waited or while it ran, too late, or the handler panicked.

use super::{
    Daemon,
    clients::Held,
    connection::Peer,
    events::DaemonEvent,
    handlers::{self, Caller},
    pools::PoolKind,
    reply::{Outgoing, Reply},
};
use luna_core::{
    Call, CancelToken, Error, ErrorKind,
    pool::{Admission, Ticket, WhenFull},
    protocol::{Event, EventKind, Fault, Message, Reason, ReplyHead, Request, RequestHead},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Progress is told no more often than this.
const PROGRESS_PAUSE: Duration = Duration::from_millis(50);

/// A request that waits or runs.
pub struct Job {
    head: RequestHead,
    command: &'static str,
    pool: PoolKind,
    arrived: Instant,
    peer: Weak<Peer>,
    token: CancelToken,
    ticket: OnceLock<Ticket>,
    /// Why it was cancelled, if not by its client's wish.
    reason: OnceLock<Reason>,
    answered: AtomicBool,
}

/// What a request brings along.
pub struct Load {
    pub request: Request,
    pub message: Message,
    pub held: Option<Held>,
}

/// Puts a request into its pool's queue.
///
/// # Errors
/// `busy` where that is full, `draining`, `invalid_input` for an id that is in use.
pub fn submit(
    daemon: &Arc<Daemon>,
    peer: &Arc<Peer>,
    head: RequestHead,
    pool: PoolKind,
    load: Load,
) -> Result<(), Fault> {
    if daemon.is_draining() {
        return Err(draining());
    }
    let admission = daemon.pools.get(pool).admit(1, WhenFull::Busy).map_err(|error| {
        let busy = error.kind() == ErrorKind::Busy;
        let fault = Fault::from(error);
        if busy { fault.retry_after(daemon.pools.retry_hint(pool)) } else { fault }
    })?;
    let job = Arc::new(Job {
        head,
        command: load.request.name(),
        pool,
        arrived: Instant::now(),
        peer: Arc::downgrade(peer),
        token: CancelToken::new(),
        ticket: OnceLock::new(),
        reason: OnceLock::new(),
        answered: AtomicBool::new(false),
    });
    peer.add_job(head.id, &job)?;
    if let Some(deadline) = head.deadline_ms {
        daemon.deadlines.add(job.arrived + Duration::from_millis(deadline.min(u64::from(u32::MAX))), &job);
    }
    let (theirs, shared) = (job.clone(), daemon.clone());
    let task = Box::new(move || {
        theirs.run(&shared, load, admission);
    });
    match daemon.pools.get(pool).push_to(peer.client().lane, task) {
        Ok(ticket) => {
            // Nobody else sets it.
            let _ = job.ticket.set(ticket);
            Ok(())
        }
        Err(_) => {
            peer.remove_job(head.id);
            Err(draining())
        }
    }
}

/// The answer to new work while the daemon ends.
pub fn draining() -> Fault {
    let error = Error::new(ErrorKind::Busy, "the daemon is ending and takes no new work")
        .remedy("try again when it has been started anew");
    Fault::because(Reason::Draining, error).retry_after(1000)
}

impl Job {
    /// Cancels it: at once where it waits, at its next step where it runs. Where there is a reason it is answered at once.
    pub fn cancel(&self, daemon: &Daemon, reason: Option<Reason>) {
        if let Some(reason) = reason {
            // The first reason counts.
            let _ = self.reason.set(reason);
        }
        self.token.cancel();
        let withdrawn = self.ticket.get().and_then(|ticket| daemon.pools.get(self.pool).withdraw(*ticket));
        if withdrawn.is_some() || reason.is_some() {
            drop(withdrawn);
            self.answer(daemon, Err(self.cancelled(Error::cancelled())), [self.waited(), 0.0], None);
        }
    }

    fn waited(&self) -> f64 {
        self.arrived.elapsed().as_secs_f64() * 1e3
    }

    /// On a worker.
    fn run(&self, daemon: &Daemon, Load { request, message, held }: Load, admission: Admission) {
        let _working = daemon.pools.working();
        let connection = self.peer.upgrade().map(|peer| peer.number);
        // Whatever is logged below here bears the request's id.
        let span = tracing::info_span!("request", connection, request = self.head.id, command = self.command);
        let _span = span.enter();
        let queue_ms = self.waited();
        if self.token.is_cancelled() {
            drop(admission);
            return self.answer(daemon, Err(self.cancelled(Error::cancelled())), [queue_ms, 0.0], held);
        }
        // Nobody is left who could have the answer.
        let Some(peer) = self.peer.upgrade() else { return };
        let start = Instant::now();
        let tell = |kind| peer.outbox.send(Outgoing::event(Event { id: self.head.id, kind }.json()));
        let caller = Caller { client: peer.client(), call: self.call(), tell: &tell };
        let work = || handlers::work(daemon, request, &message, &caller);
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let times = [queue_ms, start.elapsed().as_secs_f64() * 1e3];
        // Who has the answer may ask again at once.
        drop(admission);
        match outcome {
            Ok(outcome) => {
                let outcome = outcome.map_err(|fault| match fault.kind() {
                    ErrorKind::Cancelled => self.cancelled(fault.into()),
                    _ => fault,
                });
                self.answer(daemon, outcome, times, held);
            }
            Err(panic) => {
                let error = Error::new(ErrorKind::Internal, format!("`{}` panicked; the daemon goes on", self.command))
                    .remedy("please report it");
                self.answer(daemon, Err(error.into()), times, held);
                // The pool counts it.
                resume_unwind(panic);
            }
        }
    }

    fn cancelled(&self, error: Error) -> Fault {
        match self.reason.get() {
            Some(Reason::Deadline) => {
                let error = Error::new(ErrorKind::Cancelled, "the request's deadline has passed")
                    .expected(format!("an answer within {} ms", self.head.deadline_ms.unwrap_or_default()));
                Fault::because(Reason::Deadline, error)
            }
            Some(reason) => Fault::because(*reason, error),
            None => error.into(),
        }
    }

    /// Cancellation and, where it is wanted, events of progress.
    fn call(&self) -> Call {
        let call = Call::new().cancelled_by(&self.token);
        if !self.head.progress {
            return call;
        }
        let (peer, id) = (self.peer.clone(), self.head.id);
        let told = Mutex::new(None::<Instant>);
        call.on_progress(move |progress| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if progress.done < progress.total && told.is_some_and(|told| told.elapsed() < PROGRESS_PAUSE) {
                return;
            }
            *told = Some(Instant::now());
            let kind = EventKind::Progress { done: progress.done as u64, total: progress.total as u64 };
            if let Some(peer) = peer.upgrade() {
                peer.outbox.send(Outgoing::event(Event { id, kind }.json()));
            }
        })
    }

    fn answer(&self, daemon: &Daemon, outcome: Result<Reply, Fault>, times: [f64; 2], held: Option<Held>) {
        let Some(peer) = self.peer.upgrade() else { return };
        if self.answered.swap(true, Ordering::SeqCst) {
            return;
        }
        peer.remove_job(self.head.id);
        let frame = frame(daemon, &peer, self.head.id, self.command, times, outcome, held);
        peer.outbox.send(frame);
    }
}

/// The frame of an answer, which is counted and told.
pub fn frame(
    daemon: &Daemon,
    peer: &Peer,
    id: u64,
    command: &'static str,
    [queue_ms, compute_ms]: [f64; 2],
    outcome: Result<Reply, Fault>,
    held: Option<Held>,
) -> Outgoing {
    let (reply, error) = match outcome {
        Ok(reply) => (reply, None),
        Err(fault) => (Reply::default(), Some(fault)),
    };
    daemon.counters.count(command, [queue_ms, compute_ms], reply.fallbacks.len(), error.as_ref());
    if daemon.events.are_heard() {
        daemon.events.tell(DaemonEvent::Answered {
            connection: peer.number,
            client: peer.client().name.clone(),
            request: id,
            command,
            queue_ms,
            compute_ms,
            fallbacks: reply.fallbacks.iter().map(|notice| notice.name.clone()).collect(),
            fault: error.as_ref().map(|fault| fault.kind.clone()),
        });
    }
    let Reply { fields, tensors, fallbacks } = reply;
    let head = ReplyHead { id, ok: error.is_none(), queue_ms, compute_ms, fallbacks, error };
    Outgoing::reply(&head, &fields, tensors, held)
}
