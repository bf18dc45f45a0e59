use super::*;
use crate::picture::{Format, Metadata, Pixels, encode};

fn file(format: Format) -> Vec<u8> {
    let bytes: Vec<u8> = (0..48 * 32 * 3).map(|i| (i / 20) as u8).collect();
    encode(&Pixels::from_u8(48, 32, 3, &bytes).unwrap(), format, &Metadata::none()).unwrap()
}

const FORMATS: [Format; 4] = [Format::PNG, Format::JPEG, Format::WEBP, Format::WebpLossless];

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for format in FORMATS {
        let whole = file(format);
        assert!(decode(&whole, &Limits::default()).is_ok());
        for len in (12..whole.len() - 12).step_by(7) {
            let error = decode(&whole[..len], &Limits::default()).expect_err(&format!("{format:?} cut at {len}"));
            assert_eq!(error.kind(), ErrorKind::InvalidFile, "{error}");
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let limits = Limits { image_pixels: 1 << 20, ..Limits::default() };
    for format in FORMATS {
        let whole = file(format);
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(bytes.len() - random(bytes.len() / 4));
            // Either is fine: damage in the pixels cannot always be seen.
            let _ = decode(&bytes, &limits);
        }
    }
}

#[test]
fn sizes_meet_their_limits() {
    for format in FORMATS {
        let whole = file(format);
        let limits = Limits { image_side: 47, ..Limits::default() };
        assert_eq!(decode(&whole, &limits).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let limits = Limits { image_pixels: 48 * 32 - 1, ..Limits::default() };
        assert_eq!(decode(&whole, &limits).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let limits = Limits { picture_file_bytes: whole.len() as u64 - 1, ..Limits::default() };
        assert_eq!(decode(&whole, &limits).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn a_png_that_claims_a_huge_size_is_refused_at_once() {
    let mut bytes = file(Format::PNG);
    bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let check = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&check.to_be_bytes());
    assert_eq!(decode(&bytes, &Limits::default()).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn the_content_counts_and_not_the_extension() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.png");
    std::fs::write(&path, file(Format::JPEG)).unwrap();
    assert_eq!(read_picture(&path, &Limits::default()).unwrap().shape(), [1, 48, 32, 3]);
    std::fs::write(&path, "<html>not found</html>").unwrap();
    let error = read_picture(&path, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().starts_with(&path.display().to_string()) && error.to_string().contains("HTML"),
        "{error}"
    );
    assert_eq!(read_picture(folder.path(), &Limits::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let missing = read_picture(&folder.path().join("none.png"), &Limits::default());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}
