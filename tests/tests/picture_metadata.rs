//! What Luna's files say about their making. Pillow, exiftool and ComfyUI's own code have approved the files in
//! `fixtures/picture_metadata` (see `make.py` and `seen.json` there); new files must carry the same bytes.

use std::{fs, path::PathBuf};

use luna_core::picture::{Format, Metadata, Pixels, encode};

const PARAMETERS: &str =
    "a moonlit lake, été 🌙\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 7, Size: 16x12";
const XMP: &str = "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
                   <rdf:Description rdf:about=\"\" xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\" xmp:CreatorTool=\"Luna test\"/>\
                   </rdf:RDF></x:xmpmeta>";

fn metadata() -> Metadata {
    let prompt = r#"{"3": {"class_type": "KSampler", "inputs": {"seed": 7, "text": "été 🌙"}}}"#;
    let workflow = r#"{"nodes": [{"id": 1, "title": "lune"}], "version": 0.4}"#;
    let texts = [
        ("prompt", prompt),
        ("workflow", workflow),
        ("parameters", PARAMETERS),
        ("note", "made for a test"),
        ("singer", "Émilie"),
    ];
    let metadata = texts.into_iter().try_fold(Metadata::none(), |metadata, (key, text)| metadata.with(key, text));
    metadata.unwrap().with_xmp(XMP).unwrap()
}

fn file(format: Format, metadata: &Metadata) -> Vec<u8> {
    let values = [90, 120, 150].repeat(16 * 12);
    encode(&Pixels::from_u8(12, 16, 3, &values).unwrap(), format, metadata).unwrap()
}

/// Everything but the picture's own data: names and bodies of PNG chunks, WebP chunks or JPEG segments.
fn parts(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parts = Vec::new();
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if file.starts_with(b"\x89PNG") {
        let mut rest = &file[8..];
        while let Some((size, _)) = rest.split_first_chunk() {
            let size = u32::from_be_bytes(*size) as usize;
            parts.push((name(&rest[4..8]), rest[8..8 + size].to_vec()));
            rest = &rest[12 + size..];
        }
    } else if file.starts_with(b"RIFF") {
        assert_eq!(u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize, file.len() - 8);
        let mut rest = &file[12..];
        while let Some(head) = rest.first_chunk::<8>() {
            let size = u32::from_le_bytes(head[4..].try_into().unwrap()) as usize;
            parts.push((name(&head[..4]), rest[8..8 + size].to_vec()));
            rest = &rest[8 + size.next_multiple_of(2)..];
        }
    } else {
        let mut rest = &file[2..];
        while rest[0] == 0xff && rest[1] != 0xda {
            let size = u16::from_be_bytes([rest[2], rest[3]]) as usize;
            parts.push((format!("{:02x}", rest[1]), rest[4..2 + size].to_vec()));
            rest = &rest[2 + size..];
        }
    }
    parts.retain(|(name, _)| {
        matches!(
            name.as_str(),
            "IHDR"
                | "sRGB"
                | "gAMA"
                | "cHRM"
                | "tEXt"
                | "iTXt"
                | "IEND"
                | "VP8X"
                | "ICCP"
                | "EXIF"
                | "XMP "
                | "e0"
                | "e1"
                | "e2"
        )
    });
    parts
}

#[test]
fn the_metadata_is_what_other_programs_have_approved() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/picture_metadata");
    for (name, format, count) in [
        ("png.png", Format::PNG, 11),
        ("webp.webp", Format::WEBP, 4),
        ("webp-lossless.webp", Format::WebpLossless, 4),
        ("jpeg.jpg", Format::JPEG, 4),
    ] {
        let approved = parts(&fs::read(folder.join(name)).unwrap());
        assert_eq!(approved.len(), count, "{name}: {:?}", approved.iter().map(|(name, _)| name).collect::<Vec<_>>());
        assert_eq!(parts(&file(format, &metadata())), approved, "{name}");
    }
    let seen = fs::read_to_string(folder.join("seen.json")).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    for name in ["png.png", "webp.webp", "webp-lossless.webp", "jpeg.jpg"] {
        assert_eq!(seen[name]["comfyui"]["prompt"]["3"]["inputs"]["text"], "été 🌙", "{name}");
        assert_eq!(seen[name]["pillow"]["parameters"], PARAMETERS, "{name}");
    }
}

#[test]
fn files_without_metadata_still_state_their_colour_space() {
    for (format, wanted) in
        [(Format::PNG, "sRGB"), (Format::WEBP, "ICCP"), (Format::WebpLossless, "ICCP"), (Format::JPEG, "e2")]
    {
        let file = file(format, &Metadata::none());
        let names: Vec<_> = parts(&file).into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().any(|name| name == wanted), "{format:?}: {names:?}");
        assert!(
            !names.iter().any(|name| matches!(name.as_str(), "tEXt" | "iTXt" | "EXIF" | "XMP " | "e1")),
            "{names:?}"
        );
    }
}

#[test]
fn a_jpeg_refuses_what_it_cannot_hold_and_others_hold_it() {
    let large = Metadata::none().with("workflow", &format!("[\"{}\"]", "w".repeat(70_000))).unwrap();
    for format in [Format::PNG, Format::WEBP] {
        assert!(file(format, &large).len() > 70_000);
    }
    let values = [0; 3];
    let error = encode(&Pixels::from_u8(1, 1, 3, &values).unwrap(), Format::JPEG, &large).unwrap_err();
    assert!(error.to_string().contains("too long for a JPEG") && error.advice().is_some(), "{error}");
}

/// ComfyUI's page goes from chunk to chunk without the byte that pads an odd one, and would miss EXIF behind it.
#[test]
fn no_webp_chunk_before_exif_has_an_odd_size() {
    let mut sizes = Vec::new();
    for (side, channels) in (1..40).flat_map(|side| [(side, 1), (side, 3), (side, 4)]) {
        let values: Vec<u8> = (0..side * 7 * channels).map(|i| (i * i * 31 + side * 3) as u8).collect();
        let pixels = Pixels::from_u8(7, side, channels, &values).unwrap();
        for format in [Format::WEBP, Format::WebpLossless] {
            let file = encode(&pixels, format, &metadata()).unwrap();
            let mut rest = &file[12..];
            while &rest[..4] != b"EXIF" {
                let size = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
                assert_eq!(size % 2, 0, "{side} {channels} {format:?}");
                sizes.push(size);
                rest = &rest[8 + size..];
            }
            let image = luna_core::picture::decode(&file, &luna_core::Limits::default()).unwrap();
            if format == Format::WebpLossless {
                let back: Vec<u8> = image.data().iter().map(|value| (value * 255.0).round() as u8).collect();
                let expected: Vec<u8> = match channels {
                    1 => values.iter().flat_map(|&grey| [grey; 3]).collect(),
                    _ => values.clone(),
                };
                assert_eq!(back, expected, "{side} {channels}");
            }
        }
    }
    assert!(sizes.len() > 700, "{}", sizes.len());
}
