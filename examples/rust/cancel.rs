//! Hears the progress of a call, and ends it half-way from another thread.

use luna_core::{
    Call, CancelToken, ErrorKind, Image, Runtime,
    vae::{EncodeOptions, Vae},
};

fn main() -> luna_core::Result<()> {
    let vae = Vae::moonlet(&Runtime::cpu()?)?;
    let picture = Image::new([1, 96, 64, 3], vec![0.5; 96 * 64 * 3])?;
    let token = CancelToken::new();
    let (enough, wait) = std::sync::mpsc::channel();
    let cancel = token.clone();
    let watcher = std::thread::spawn(move || {
        if wait.recv().is_ok() {
            cancel.cancel();
        }
    });
    let call = Call::new().cancelled_by(&token).on_progress(move |progress| {
        println!("{} of {}", progress.done, progress.total);
        // The listener holds the call up until the other thread has cancelled it.
        if 2 * progress.done > progress.total && enough.send(()).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let options = EncodeOptions { call, ..EncodeOptions::default() };
    let outcome = vae.encode(&picture, &options);
    drop(options);
    watcher.join().expect("the watcher has no fault");
    match outcome {
        Err(error) if error.kind() == ErrorKind::Cancelled => println!("stopped: {error}"),
        Err(error) => return Err(error),
        Ok(_) => println!("it was done before"),
    }
    Ok(())
}
