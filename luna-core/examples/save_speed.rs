//! Times Luna's picture encoders on raw RGB files, for `bench/save.py` to set beside Pillow's.
//!
//! `save_speed ROUNDS SIDE FILE…` with files of SIDE × SIDE × 3 bytes; prints `name<TAB>encoder<TAB>ms<TAB>bytes`. Then
//! five f32 pictures of each file go through a saver: what the caller waits in all, and until the last is on the disk.

use std::{env, error::Error, fs, path::Path, time::Instant};

use luna_core::{
    Image,
    picture::{BitDepth, Effort, Format, Metadata, Pixels, encode},
    save::{SaveConfig, SaveImage, SaveJob, SavePool},
};

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
        ("png 1", png(Effort::Level(1))),
        ("png 6", png(Effort::Level(6))),
        ("png 9", png(Effort::Level(9))),
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
        let (submitted, saved) = save_five(&bytes, side)?;
        println!("{name}\tsubmit five\t{submitted:.3}\t0");
        println!("{name}\tsave five\t{saved:.2}\t0");
    }
    Ok(())
}

/// Milliseconds until five jobs were taken in, and until all five pictures were on the disk.
fn save_five(bytes: &[u8], side: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let pool = SavePool::new(SaveConfig::new(folder.path()))?;
    let values: Vec<f32> = bytes.iter().map(|&value| f32::from(value) / 255.0).collect();
    let image = || Image::new([1, side, side, 3], values.clone());
    let images = [image()?, image()?, image()?, image()?, image()?];
    let start = Instant::now();
    for image in images {
        pool.submit(SaveJob::new(vec![SaveImage::new(image, Format::PNG)]))?;
    }
    let submitted = start.elapsed().as_secs_f64() * 1e3;
    pool.close();
    Ok((submitted, start.elapsed().as_secs_f64() * 1e3))
}
