//! Times Luna's picture encoders on raw RGB files, for `bench/save.py` to set beside Pillow's.
//!
//! `save_speed ROUNDS SIDE FILE…` with files of SIDE × SIDE × 3 bytes; prints `name<TAB>encoder<TAB>ms<TAB>bytes`.

use std::{env, error::Error, fs, path::Path, time::Instant};

use luna_core::picture::{BitDepth, Effort, Format, Metadata, Pixels, encode};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut number = || arguments.next().and_then(|text| text.parse::<usize>().ok());
    let (Some(rounds), Some(side)) = (number(), number()) else {
        return Err("usage: save_speed ROUNDS SIDE FILE…".into());
    };
    let png = |effort| Format::Png { effort, bits: BitDepth::Eight };
    let formats = [
        ("png fast", png(Effort::Fast)),
        ("png (default)", Format::PNG),
        ("png 6", png(Effort::Level(6))),
        ("webp 90", Format::WEBP),
        ("webp lossless", Format::WebpLossless),
        ("jpeg 90", Format::JPEG),
    ];
    for file in arguments {
        let bytes = fs::read(&file)?;
        let pixels = Pixels::from_u8(side, side, 3, &bytes)?;
        let name = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy();
        for (label, format) in formats {
            let mut best = f64::INFINITY;
            let mut size = 0;
            for _ in 0..rounds {
                let start = Instant::now();
                size = encode(&pixels, format, &Metadata::none())?.len();
                best = best.min(start.elapsed().as_secs_f64() * 1e3);
            }
            println!("{name}\t{label}\t{best:.2}\t{size}");
        }
    }
    Ok(())
}
