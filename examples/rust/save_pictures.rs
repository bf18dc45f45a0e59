//! Saves a picture in the background, below the folder that is given, and tells where it went.

use luna_core::{
    Error, ErrorKind, Image,
    picture::{Format, Metadata},
    save::{Fate, SaveConfig, SaveImage, SaveJob, SavePool, Template},
};

fn main() -> luna_core::Result<()> {
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: save_pictures FOLDER");
    let folder = std::env::args_os().nth(1).ok_or_else(usage)?;
    let gradient = (0..24 * 32 * 3).map(|i| (i / 3 % 32) as f32 / 31.0).collect();
    let picture = Image::new([1, 24, 32, 3], gradient)?;
    let pool = SavePool::new(SaveConfig::new(std::path::PathBuf::from(folder)))?;
    let mut job = SaveJob::new(vec![SaveImage::new(picture, Format::PNG)]);
    job.name = Template::parse("gradient_%counter:3%")?;
    job.metadata = Metadata::none().with("parameters", "a gradient")?;
    let id = pool.submit(job)?;
    for picture in pool.wait(id, None)?.pictures {
        match picture.fate {
            Fate::Written(file) => println!("{}: {} bytes", file.path.display(), file.bytes),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
