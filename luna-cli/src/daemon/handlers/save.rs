//! Pictures to files.

use super::super::{Daemon, convert, job, reply::Reply};
use luna_core::{
    Error, ErrorKind,
    protocol::{Fault, JobAccepted, JobCancel, JobStatus, Message, Reason, SaveImagesAsync, SubmitAsync, TaskName},
    save::{JobId, SavePool},
};

pub fn submit(daemon: &Daemon, request: &SaveImagesAsync, message: &Message) -> Result<Reply, Fault> {
    if daemon.is_draining() {
        return Err(job::draining());
    }
    let saver = saver(daemon)?;
    let below = daemon.saves.below(request.output.as_deref())?;
    let job = convert::save_job(request, message, &below)?;
    let num_images = job.images.iter().map(|image| image.pixels.shape()[0]).sum();
    let id = saver.submit(job).map_err(|error| {
        let busy = error.kind() == ErrorKind::Busy;
        let fault = Fault::from(error);
        if busy { fault.retry_after(200) } else { fault }
    })?;
    let output = daemon.saves.output().unwrap_or_default();
    Ok(Reply::of(&JobAccepted { job_id: id.to_string(), num_images, output })?)
}

/// A job by the name of its kind.
pub fn submit_task(daemon: &Daemon, request: &SubmitAsync, message: &Message) -> Result<Reply, Fault> {
    match request.task_name {
        TaskName::SaveImages => submit(daemon, &request.task_data, message),
        _ => Err(Error::new(ErrorKind::Unsupported, "the daemon does no such task").into()),
    }
}

pub fn status(daemon: &Daemon, request: &JobStatus) -> Result<Reply, Fault> {
    let id: JobId = request.job_id.parse()?;
    Ok(Reply::of(&convert::job_state(&saver(daemon)?.status(id)?))?)
}

pub fn cancel(daemon: &Daemon, request: &JobCancel) -> Result<Reply, Fault> {
    let (saver, id) = (saver(daemon)?, request.job_id.parse::<JobId>()?);
    saver.cancel(id)?;
    Ok(Reply::of(&convert::job_state(&saver.status(id)?))?)
}

fn saver(daemon: &Daemon) -> Result<&SavePool, Fault> {
    daemon.saves.pool().ok_or_else(|| {
        let error = Error::new(ErrorKind::Unsupported, "the daemon has no folder to save pictures in")
            .remedy("start it with `--output FOLDER`");
        Fault::because(Reason::Denied, error)
    })
}
