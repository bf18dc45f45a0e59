//! What the C ABI costs: nanoseconds a call, the same calls through the crate and through the ABI, and bytes copied on the
//! way, as Luna tells them and as an allocator counts them: `cargo run --release -p luna-ffi --example overhead`.

use luna::*;
use luna_core::{
    Device, ImageView, LatentView, Runtime,
    text::{Conditioner, TextModel, TextOptions, TokenIds},
    vae::Vae,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    error::Error,
    mem,
    num::NonZeroUsize,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// The bar: microseconds that a call may cost beyond what it does.
const MOST_MICROSECONDS: f64 = 5.0;

/// Sides of the picture that is encoded.
const SIDE: usize = 256;

/// Bytes that were allocated since the program began.
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn zeroed<T>() -> T {
    // SAFETY: used for structs of the header only, of which zeros are a value.
    unsafe { mem::zeroed() }
}

fn report() -> luna_report {
    luna_report { size: size_of::<luna_report>(), ..zeroed() }
}

fn view<T>(dtype: luna_dtype, shape: &[usize], data: &[T]) -> luna_view {
    let mut view = luna_view { data: data.as_ptr().cast(), dtype: dtype as i32, rank: shape.len() as u32, ..zeroed() };
    shape.iter().enumerate().for_each(|(axis, &side)| view.shape[axis] = side as i64);
    view
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

/// The least bytes that a call allocates, once it has what it keeps.
fn allocated(mut call: impl FnMut()) -> u64 {
    let once = |_| {
        let before = ALLOCATED.load(Ordering::Relaxed);
        call();
        ALLOCATED.load(Ordering::Relaxed) - before
    };
    (0..8).map(once).min().unwrap_or_default()
}

/// What a call copied: as its report tells, and as the allocator counts beyond the crate's own call.
struct Copies {
    name: &'static str,
    told: u64,
    alone: u64,
    through: u64,
    /// Bytes of the smallest array that the call takes or gives.
    array: u64,
}

impl Copies {
    fn beyond(&self) -> u64 {
        self.through.saturating_sub(self.alone)
    }

    fn print(&self) {
        let Self { name, told, alone, array, .. } = self;
        println!("{name:<20}{told:>8} told{:>10} beyond the crate's {alone:>9}, arrays of {array:>7}", self.beyond());
    }

    /// Whether no array was copied: a copy would add as much as the smallest has. Handles and ids take less.
    fn holds(&self) -> bool {
        self.told == 0 && self.beyond() < self.array / 2
    }
}

/// Encoding and decoding of a VAE.
fn vae_copies(vae: luna_vae, own: &Vae) -> Result<[Copies; 2], Box<dyn Error>> {
    let shape = [1, SIDE, SIDE, 3];
    let pixels = vec![0.5f32; SIDE * SIDE * 3];
    let (image, mut latent, mut told) = (view(luna_dtype::F32, &shape, &pixels), zeroed(), report());
    let mut encode = |keep: bool| {
        // SAFETY: every pointer leads to what the header says.
        let status = unsafe { luna_vae_encode(vae, &image, ptr::null(), &mut latent, &mut told) };
        assert_eq!(status, luna_status::Ok);
        if !keep {
            luna_tensor_free(latent);
        }
        (latent, told.copied_bytes)
    };
    let through = allocated(|| _ = encode(false));
    let (latent, copied) = encode(true);
    let picture = ImageView::new(shape, &pixels)?;
    let alone = allocated(|| own.encode(picture, &Default::default()).map(drop).expect("a grey picture"));
    let made = own.encode(picture, &Default::default())?.latent;
    let bytes = made.data().len() as u64 * 4;
    let encoding = Copies { name: "luna_vae_encode", told: copied, alone, through, array: bytes };

    let (mut lying, mut image): (luna_view, luna_tensor) = (zeroed(), zeroed());
    // SAFETY: as above.
    assert_eq!(unsafe { luna_tensor_view(latent, &mut lying) }, luna_status::Ok);
    let through = allocated(|| {
        // SAFETY: as above.
        let status = unsafe { luna_vae_decode(vae, &lying, ptr::null(), &mut image, &mut told) };
        assert_eq!((status, luna_tensor_free(image)), (luna_status::Ok, luna_status::Ok));
    });
    let own_latent = LatentView::new(made.shape(), made.data())?;
    let alone = allocated(|| own.decode(own_latent, &Default::default()).map(drop).expect("a latent"));
    let decoding = Copies { name: "luna_vae_decode", told: told.copied_bytes, alone, through, array: bytes };
    luna_tensor_free(latent);
    Ok([encoding, decoding])
}

/// Encoding of a prompt and of token ids: nothing goes in but these, and what comes out is viewed where it was made.
fn text_copies(text: luna_text, own: &TextModel) -> Result<[Copies; 2], Box<dyn Error>> {
    let (prompts, mut told) = ([c"a fox".as_ptr()], report());
    let mut made: luna_conditioning = zeroed();
    let through = allocated(|| {
        // SAFETY: every pointer leads to what the header says.
        let status = unsafe { luna_text_encode(text, prompts.as_ptr(), 1, ptr::null(), &mut made, &mut told) };
        assert_eq!((status, luna_conditioning_free(made)), (luna_status::Ok, luna_status::Ok));
    });
    let (conditioner, options) = (Conditioner::new(&[own])?, TextOptions::default());
    let encoded = conditioner.encode(&["a fox".into()], &options)?;
    let array = encoded.first().data().len() as u64 * 4;
    let alone = allocated(|| conditioner.encode(&["a fox".into()], &options).map(drop).expect("a prompt"));
    let prompt = Copies { name: "luna_text_encode", told: told.copied_bytes, alone, through, array };

    let ids: Vec<u32> = (0..77).map(|at| if at == 0 { 49406 } else { 49407 - 300 * (at % 3) }).collect();
    let numbers: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
    let row = view(luna_dtype::I64, &[77], &numbers);
    let through = allocated(|| {
        // SAFETY: as above.
        let status = unsafe { luna_text_encode_ids(text, &row, ptr::null(), &mut made, &mut told) };
        assert_eq!((status, luna_conditioning_free(made)), (luna_status::Ok, luna_status::Ok));
    });
    let rows = [TokenIds { ids, mask: None }];
    let alone = allocated(|| conditioner.encode_ids(&rows, &options).map(drop).expect("token ids"));
    Ok([prompt, Copies { name: "luna_text_encode_ids", told: told.copied_bytes, alone, through, array }])
}

/// A prompt that is remembered is shown where it lies, each time.
fn cached(session: luna_session) {
    let (names, prompts) = ([c"demo".as_ptr()], [c"a fox".as_ptr()]);
    let size = size_of::<luna_text_load_options>();
    let options = luna_text_load_options { size, cache_bytes: 1 << 20, ..zeroed() };
    let (mut text, mut told): (luna_text, luna_report) = (zeroed(), report());
    // SAFETY: every pointer leads to what the header says.
    unsafe {
        assert_eq!(luna_text_load(session, names.as_ptr(), 1, &options, &mut text), luna_status::Ok);
        let places = [(); 2].map(|()| {
            let (mut made, mut view): (luna_conditioning, luna_view) = (zeroed(), zeroed());
            let status = luna_text_encode(text, prompts.as_ptr(), 1, ptr::null(), &mut made, &mut told);
            assert_eq!(status, luna_status::Ok);
            assert_eq!(luna_tensor_view(made.tokens, &mut view), luna_status::Ok);
            assert_eq!(luna_conditioning_free(made), luna_status::Ok);
            view.data
        });
        assert_eq!((places[0], told.cached, told.copied_bytes), (places[1], 1, 0));
    }
    luna_text_free(text);
}

/// Microseconds of calls that do next to nothing.
fn costs(vae: luna_vae) -> [(&'static str, f64); 5] {
    let mut info = luna_vae_info { size: size_of::<luna_vae_info>(), ..zeroed() };
    let (pixels, mut latent): (_, luna_tensor) = ([0.5f32; 8 * 8 * 3], zeroed());
    let image = view(luna_dtype::F32, &[1, 8, 8, 3], &pixels);
    // SAFETY: every pointer leads to what the header says.
    unsafe { luna_vae_encode(vae, &image, ptr::null(), &mut latent, ptr::null_mut()) };
    let costs = [
        // SAFETY: as above.
        ("luna_vae_get_info", time(100_000, || _ = unsafe { luna_vae_get_info(vae, &mut info) })),
        // SAFETY: as above.
        ("luna_tensor_view", time(100_000, || _ = unsafe { luna_tensor_view(latent, &mut zeroed()) })),
        (
            "luna_call_new and luna_call_free",
            time(100_000, || {
                let mut call = zeroed();
                // SAFETY: as above.
                unsafe { luna_call_new(ptr::null(), &mut call) };
                luna_call_free(call);
            }),
        ),
        ("a refused handle, with its words", time(20_000, || _ = luna_vae_free(zeroed()))),
        (
            "luna_open and luna_close",
            time(2_000, || {
                let mut session = zeroed();
                // SAFETY: as above.
                unsafe { luna_open(ptr::null(), &mut session) };
                luna_close(session);
            }),
        ),
    ];
    luna_tensor_free(latent);
    costs
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut session, mut vae, mut text): (luna_session, luna_vae, luna_text) = (zeroed(), zeroed(), zeroed());
    let names = [c"demo".as_ptr()];
    // With one thread each call allocates the same.
    let options = luna_open_options { size: size_of::<luna_open_options>(), threads: 1, ..zeroed() };
    // SAFETY: every pointer leads to what the header says.
    unsafe {
        assert_eq!(luna_open(&options, &mut session), luna_status::Ok);
        assert_eq!(luna_vae_load(session, c"moonlet".as_ptr(), &mut vae), luna_status::Ok);
        assert_eq!(luna_text_load(session, names.as_ptr(), 1, ptr::null(), &mut text), luna_status::Ok);
    }
    let runtime = Runtime::new(Device::Cpu, NonZeroUsize::new(1))?;
    let (own_vae, own_text) = (Vae::moonlet(&runtime)?, TextModel::demo(&runtime)?);
    let copies: Vec<Copies> = vae_copies(vae, &own_vae)?.into_iter().chain(text_copies(text, &own_text)?).collect();
    println!("bytes copied and allocated by a call");
    copies.iter().for_each(Copies::print);
    cached(session);

    let costs = costs(vae);
    println!("microseconds of a call");
    for (name, microseconds) in &costs {
        println!("{name:<44}{microseconds:>10.3}");
    }
    let over = costs.iter().filter(|(_, microseconds)| *microseconds > MOST_MICROSECONDS).count();
    let copying = copies.iter().filter(|copies| !copies.holds()).count();
    println!(
        "{over} of {} calls are over {MOST_MICROSECONDS} µs, {copying} of {} copy an array",
        costs.len(),
        copies.len()
    );
    luna_text_free(text);
    luna_vae_free(vae);
    luna_close(session);
    if over + copying == 0 { Ok(()) } else { Err("a call costs too much".into()) }
}
