//! What a caller hands over to be saved. Enters: pictures, formats, names, metadata, options. Leaves: a checked job,
//! and for each picture in it where it goes. It never looks at the disk.

use crate::{
    Error, ErrorKind, Image, Limits, Result,
    files::IfExists,
    limits::check_at_most,
    picture::{Format, Metadata, Pixels},
    pool::WhenFull,
};

use super::{
    clock::Timestamp,
    gate::Gate,
    name::{relative, without_separators},
    template::{Name, NameValues, PictureValues, Template},
};

/// Pictures to be saved. Made by [`SaveJob::new`]; every field may be set.
#[derive(Debug)]
#[non_exhaustive]
pub struct SaveJob {
    /// What is saved, in this order.
    pub images: Vec<SaveImage>,
    /// Folders below the output folder; tokens as in the name, but no counter. Empty for the output folder itself.
    pub folder: Template,
    /// The file's name, without extension.
    pub name: Template,
    /// What folder and name may ask for.
    pub values: NameValues,
    /// What every file says about its making.
    pub metadata: Metadata,
    /// What a picture must reach to be kept.
    pub gate: Gate,
    /// What happens where a file of the name exists: a number is added by default.
    pub if_exists: IfExists,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
    /// Whether the job is on the disk before it is taken in, so that it survives the process.
    pub durable: bool,
    /// The moment that `%time%` stands for.
    pub time: Timestamp,
}

/// One picture or a batch of one size.
#[derive(Debug)]
#[non_exhaustive]
pub struct SaveImage {
    /// The pixels.
    pub pixels: Picture,
    /// A word behind the name, such as `UPSCALED`, unless the template places it itself; may be empty.
    pub affix: String,
    /// The file format.
    pub format: Format,
    /// Whether it goes into a folder named like its affix.
    pub subfolder: bool,
}

/// Pixels handed over, without a copy: `[batch, height, width, channels]`, f32 in 0..1 or u8.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    shape: [usize; 4],
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

impl Picture {
    /// 8-bit pixels of this shape.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong shape or number of values, `LimitExceeded` above the default [`Limits`].
    pub fn from_u8(shape: [usize; 4], values: Vec<u8>) -> Result<Self> {
        let [batch, height, width, channels] = shape;
        check_at_most("images in a batch", batch as u64, Limits::default().batch as u64)?;
        let one = values.len() / batch.max(1);
        Pixels::from_u8(height, width, channels, &values[..one])?;
        if batch == 0 || one * batch != values.len() {
            return Err(Error::new(ErrorKind::InvalidInput, "the batch has a wrong number of values")
                .expected(format!("a multiple for {shape:?}, at least one picture"))
                .found(values.len().to_string()));
        }
        Ok(Self { shape, values: Values::U8(values) })
    }

    /// Pixels of this shape that nobody will ask for.
    pub(super) fn unread(shape: [usize; 4]) -> Self {
        Self { shape, values: Values::U8(Vec::new()) }
    }

    /// `[batch, height, width, channels]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Bytes of the pixels.
    pub fn bytes(&self) -> u64 {
        match &self.values {
            Values::F32(values) => values.len() as u64 * 4,
            Values::U8(values) => values.len() as u64,
        }
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    /// One picture of the batch.
    pub(super) fn pixels(&self, index: usize) -> Result<Pixels<'_>> {
        let [_, height, width, channels] = self.shape;
        let one = height * width * channels;
        match &self.values {
            Values::F32(values) => Pixels::from_f32(height, width, channels, &values[index * one..][..one]),
            Values::U8(values) => Pixels::from_u8(height, width, channels, &values[index * one..][..one]),
        }
    }
}

impl From<Image> for Picture {
    fn from(image: Image) -> Self {
        Self { shape: image.shape(), values: Values::F32(image.into_data()) }
    }
}

impl SaveImage {
    /// Pixels in a format, without affix.
    pub fn new(pixels: impl Into<Picture>, format: Format) -> Self {
        Self { pixels: pixels.into(), affix: String::new(), format, subfolder: false }
    }
}

impl SaveJob {
    /// These pictures under the default template, numbered where names are taken, now in UTC.
    pub fn new(images: Vec<SaveImage>) -> Self {
        Self {
            images,
            folder: Template::empty(),
            name: Template::default(),
            values: NameValues::default(),
            metadata: Metadata::none(),
            gate: Gate::default(),
            if_exists: IfExists::Number,
            when_full: WhenFull::default(),
            durable: false,
            time: Timestamp::now_utc(),
        }
    }

    /// Bytes of all pixels and texts.
    pub(super) fn bytes(&self) -> u64 {
        self.images.iter().map(|image| image.pixels.bytes()).sum::<u64>() + self.metadata.bytes() as u64
    }

    /// Where each picture goes, image by image.
    ///
    /// # Errors
    /// `InvalidInput` for anything in the job that could never be saved; `LimitExceeded` for too many pictures.
    pub(super) fn plan(&self, job: &str) -> Result<Vec<Planned>> {
        self.gate.check()?;
        if self.images.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "the job holds no pictures"));
        }
        let mut plan = Vec::new();
        for (image, item) in self.images.iter().enumerate() {
            item.format.check()?;
            let batch = item.pixels.shape[0];
            check_at_most(
                "pictures in a job",
                plan.len().saturating_add(batch) as u64,
                Limits::default().batch as u64,
            )?;
            for index in 0..batch {
                plan.push(Planned { image, index, format: item.format, name: self.name_of(item, index, job)? });
            }
        }
        Ok(plan)
    }

    fn name_of(&self, item: &SaveImage, index: usize, job: &str) -> Result<Name> {
        let [batch, height, width, _] = item.pixels.shape;
        let picture = PictureValues { time: self.time, job, affix: &item.affix, width, height };
        let mut folders = self.folder.render(&self.values, &picture)?.into_folders()?;
        if item.subfolder {
            folders.extend(relative(&without_separators(&item.affix))?);
        }
        let mut suffix = String::new();
        if !item.affix.is_empty() && !self.name.has_affix() {
            suffix = format!("_{}", item.affix);
        }
        if batch > 1 {
            suffix = format!("{suffix}_{index}");
        }
        self.name.render(&self.values, &picture)?.into_name(folders, &suffix, item.format.extension())
    }
}

/// One picture of a job, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) image: usize,
    pub(super) index: usize,
    pub(super) format: Format,
    pub(super) name: Name,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(affix: &str, batch: usize, subfolder: bool) -> SaveJob {
        let pixels = Picture::from_u8([batch, 1, 1, 3], vec![0; batch * 3]).unwrap();
        SaveJob::new(vec![SaveImage { affix: affix.to_owned(), subfolder, ..SaveImage::new(pixels, Format::JPEG) }])
    }

    fn paths(job: &SaveJob) -> Vec<String> {
        let plan = job.plan("id").unwrap();
        plan.iter()
            .map(|item| item.name.folders.iter().cloned().chain([item.name.file(1)]).collect::<Vec<_>>().join("/"))
            .collect()
    }

    #[test]
    fn affix_and_batch_index_follow_the_name() {
        let mut job = job("RAW", 2, true);
        job.name = Template::parse("x").unwrap();
        job.folder = Template::parse("out").unwrap();
        assert_eq!(paths(&job), ["out/RAW/x_RAW_0.jpg", "out/RAW/x_RAW_1.jpg"]);
        job.name = Template::parse("%affix%/x").unwrap();
        job.images[0].subfolder = false;
        assert_eq!(paths(&job), ["out/RAW/x_0.jpg", "out/RAW/x_1.jpg"]);
    }

    #[test]
    fn what_can_never_be_saved_is_refused_at_once() {
        assert!(SaveJob::new(Vec::new()).plan("id").is_err());
        assert!(job("..", 1, true).plan("id").is_err());
        let mut counter_in_folder = job("", 1, false);
        counter_in_folder.folder = Template::parse("%counter%").unwrap();
        assert!(counter_in_folder.plan("id").is_err());
        let mut quality = job("", 1, false);
        quality.images[0].format = Format::Jpeg { quality: 0 };
        assert!(quality.plan("id").is_err());
        assert_eq!(job("", 1024, false).plan("id").unwrap().len(), 1024);
        assert!(Picture::from_u8([2, 1, 1, 3], vec![0; 5]).is_err());
        assert!(Picture::from_u8([0, 1, 1, 3], vec![]).is_err());
    }
}
