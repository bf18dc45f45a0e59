//! Hears the progress of a call, and ends it half-way; any other thread could do so with a clone of the token.

use luna_core::{
    Call, CancelToken, ErrorKind, Image, Runtime,
    vae::{EncodeOptions, Vae},
};

fn main() -> luna_core::Result<()> {
    let vae = Vae::moonlet(&Runtime::cpu()?)?;
    let picture = Image::new([1, 96, 64, 3], vec![0.5; 96 * 64 * 3])?;
    let token = CancelToken::new();
    let own = token.clone();
    let call = Call::new().cancelled_by(&token).on_progress(move |progress| {
        println!("{} of {}", progress.done, progress.total);
        if 2 * progress.done > progress.total {
            own.cancel();
        }
    });
    match vae.encode(&picture, &EncodeOptions { call, ..EncodeOptions::default() }) {
        Err(error) if error.kind() == ErrorKind::Cancelled => println!("stopped: {error}"),
        Err(error) => return Err(error),
        Ok(_) => println!("it was done before"),
    }
    Ok(())
}
