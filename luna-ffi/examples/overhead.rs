//! What the C ABI costs: nanoseconds a call, the same encode through the crate and through the ABI, and bytes copied on
//! the way: `cargo run --release -p luna-ffi --example overhead`.

use luna::*;
use luna_core::{ImageView, Runtime, vae::Vae};
use std::{error::Error, mem, ptr, time::Instant};

/// The bar: microseconds that a call may cost beyond what it does.
const MOST_MICROSECONDS: f64 = 5.0;

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

/// The least microseconds of a call, over rounds of `calls`.
fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
    }
    best
}

/// Counts what a text call copies: nothing goes in but the prompt, and what comes out is viewed where it was made.
fn copied_by_text(session: luna_session) {
    let (names, prompts) = ([c"demo".as_ptr()], [c"a fox".as_ptr()]);
    let options =
        luna_text_load_options { size: size_of::<luna_text_load_options>(), cache_bytes: 1 << 20, ..zeroed() };
    let mut report = luna_report { size: size_of::<luna_report>(), ..zeroed() };
    let (mut text, mut made): (luna_text, [luna_conditioning; 2]) = (zeroed(), zeroed());
    // SAFETY: every pointer leads to what the header says.
    unsafe {
        assert_eq!(luna_text_load(session, names.as_ptr(), 1, &options, &mut text), luna_status::Ok);
        let places = made.map(|mut one| {
            let status = luna_text_encode(text, prompts.as_ptr(), 1, ptr::null(), &mut one, &mut report);
            assert_eq!(status, luna_status::Ok);
            let mut view: luna_view = zeroed();
            assert_eq!(luna_tensor_view(one.tokens, &mut view), luna_status::Ok);
            (one, view.data)
        });
        // The cache's own memory is shown each time.
        assert_eq!(places[0].1, places[1].1);
        made = places.map(|(one, _)| one);
    }
    println!("{:<44}{:>10} bytes", "copied by a text call, also from its cache", report.copied_bytes);
    assert_eq!((report.copied_bytes, report.cached), (0, 1));
    made.into_iter().for_each(|one| assert_eq!(luna_conditioning_free(one), luna_status::Ok));
    luna_text_free(text);
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut session, mut vae): (luna_session, luna_vae) = (zeroed(), zeroed());
    let pixels = vec![0.5f32; 8 * 8 * 3];
    let mut view = luna_view { data: pixels.as_ptr().cast(), rank: 4, ..zeroed() };
    view.shape[..4].copy_from_slice(&[1, 8, 8, 3]);
    // SAFETY: every pointer leads to what the header says.
    unsafe {
        assert_eq!(luna_open(ptr::null(), &mut session), luna_status::Ok);
        assert_eq!(luna_vae_load(session, c"moonlet".as_ptr(), &mut vae), luna_status::Ok);
    }
    let mut info = luna_vae_info { size: size_of::<luna_vae_info>(), ..zeroed() };
    let mut report = luna_report { size: size_of::<luna_report>(), ..zeroed() };
    let mut latent: luna_tensor = zeroed();
    // SAFETY: as above.
    let encode = |latent: &mut luna_tensor, report: *mut luna_report| unsafe {
        assert_eq!(luna_vae_encode(vae, &view, ptr::null(), latent, report), luna_status::Ok);
    };
    encode(&mut latent, &mut report);
    println!("{:<44}{:>10} bytes", "copied by an encode of aligned f32", report.copied_bytes);
    assert_eq!(report.copied_bytes, 0);
    let (mut own, mut picture): (luna_view, luna_tensor) = (zeroed(), zeroed());
    // SAFETY: as above.
    unsafe {
        assert_eq!(luna_tensor_view(latent, &mut own), luna_status::Ok);
        assert_eq!(luna_vae_decode(vae, &own, ptr::null(), &mut picture, &mut report), luna_status::Ok);
    }
    println!("{:<44}{:>10} bytes", "copied by a decode of Luna's own latent", report.copied_bytes);
    assert_eq!(report.copied_bytes, 0);
    luna_tensor_free(picture);
    copied_by_text(session);

    let mut calls = Vec::new();
    // SAFETY: as above.
    calls.push((
        "luna_vae_get_info",
        time(100_000, || unsafe {
            luna_vae_get_info(vae, &mut info);
        }),
    ));
    // SAFETY: as above.
    calls.push((
        "luna_tensor_view",
        time(100_000, || unsafe {
            luna_tensor_view(latent, &mut zeroed());
        }),
    ));
    calls.push((
        "luna_call_new and luna_call_free",
        time(100_000, || {
            let mut call = zeroed();
            // SAFETY: as above.
            unsafe { luna_call_new(ptr::null(), &mut call) };
            luna_call_free(call);
        }),
    ));
    calls.push((
        "a refused handle, with its words",
        time(20_000, || {
            luna_vae_free(zeroed());
        }),
    ));
    calls.push((
        "luna_open and luna_close",
        time(2_000, || {
            let mut session = zeroed();
            // SAFETY: as above.
            unsafe { luna_open(ptr::null(), &mut session) };
            luna_close(session);
        }),
    ));
    for (name, microseconds) in &calls {
        println!("{name:<44}{microseconds:>10.3} µs");
    }

    let own = Vae::moonlet(&Runtime::cpu()?)?;
    let image = ImageView::new([1, 8, 8, 3], &pixels)?;
    let crate_alone = time(100, || {
        own.encode(image, &Default::default()).map(drop).expect("a grey picture");
    });
    let through_abi = time(100, || {
        encode(&mut latent, ptr::null_mut());
        luna_tensor_free(latent);
    });
    println!("{:<44}{crate_alone:>10.3} µs", "encode of 8x8 through the crate");
    println!("{:<44}{through_abi:>10.3} µs", "encode of 8x8 through the C ABI, and free");
    let over = calls.iter().filter(|(_, microseconds)| *microseconds > MOST_MICROSECONDS).count();
    println!("{over} of {} calls are over {MOST_MICROSECONDS} µs", calls.len());
    luna_vae_free(vae);
    luna_close(session);
    if over == 0 { Ok(()) } else { Err("a call costs too much".into()) }
}
