use super::*;
use crate::{Limits, picture::decode};

/// Smooth, noisy, flat and repeating parts, so that every coder has work.
fn mixed(height: usize, width: usize, channels: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 29) as usize
    };
    let value = |y: usize, x: usize, c: usize, noise: usize| match 4 * y / height {
        0 => x / 2 + y + 40 * c + noise,
        1 => 200,
        2 => (x % 12) * 20 + y % 3,
        _ => noise * 31,
    };
    let mut out = Vec::with_capacity(height * width * channels);
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                out.push(value(y, x, c, noise()) as u8);
            }
        }
    }
    out
}

fn every_effort() -> impl Iterator<Item = Effort> {
    (0..=9).map(Effort::Level).chain([Effort::Fast])
}

#[test]
fn every_effort_and_layout_is_read_back_exactly() {
    for (height, width, channels) in [(300, 280, 3), (257, 130, 1), (64, 333, 4), (1, 1, 3), (3, 7, 4)] {
        let bytes = mixed(height, width, channels);
        let pixels = Pixels::from_u8(height, width, channels, &bytes).unwrap();
        for effort in every_effort() {
            for bits in [BitDepth::Eight, BitDepth::Sixteen] {
                let file = encode(&pixels, effort, bits, &Metadata::none()).unwrap();
                let image = decode(&file, &Limits::default()).unwrap();
                assert_eq!(image.shape(), [1, height, width, channels]);
                let back = Pixels::of(&image, 0).to_u8().unwrap();
                assert!(back == bytes, "{height}x{width}x{channels} {effort:?} {bits:?}");
            }
        }
    }
}

#[test]
fn sixteen_bits_keep_what_eight_cannot() {
    let values: Vec<f32> = (0..64 * 64 * 3).map(|i| i as f32 / 12_288.0).collect();
    let pixels = Pixels::from_f32(64, 64, 3, &values).unwrap();
    let file = encode(&pixels, Effort::default(), BitDepth::Sixteen, &Metadata::none()).unwrap();
    let image = decode(&file, &Limits::default()).unwrap();
    let worst = image.data().iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1.0 / 65535.0, "{worst}");
}

#[test]
fn more_effort_makes_no_larger_files() {
    let bytes = mixed(256, 256, 3);
    let pixels = Pixels::from_u8(256, 256, 3, &bytes).unwrap();
    let size = |effort| encode(&pixels, effort, BitDepth::Eight, &Metadata::none()).unwrap().len();
    assert!(size(Effort::Level(4)) <= size(Effort::Fast));
    assert!(size(Effort::Level(6)) <= size(Effort::Level(4)));
    assert!(size(Effort::Level(1)) < size(Effort::Level(0)) / 2);
}

#[test]
fn sums_join_as_if_the_parts_were_one() {
    let data = mixed(40, 50, 3);
    let sum = |data: &[u8]| {
        let mut sum = simd_adler32::Adler32::new();
        sum.write(data);
        sum.finish()
    };
    for at in [0, 1, 2999, data.len()] {
        let (a, b) = data.split_at(at);
        assert_eq!(joined_adler(sum(a), sum(b), b.len()), sum(&data));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_strip_inflates_to_itself(
        parts in proptest::collection::vec((proptest::prelude::any::<u8>(), 0usize..700), 0..40),
        level in 0u8..=9,
    ) {
        let data: Vec<u8> = parts.iter().flat_map(|&(byte, count)| {
            let skewed = byte.leading_zeros() as u8;
            (0..count).map(move |i| if count % 3 == 0 { 0 } else { skewed.wrapping_mul(i as u8 & byte) })
        }).collect();
        let mut stream = strip::compress(&data, Effort::Level(level));
        stream.extend(ZLIB_END);
        let mut back = Vec::with_capacity(data.len() + 1);
        let mut state = flate2::Decompress::new(false);
        let status = state.decompress_vec(&stream, &mut back, flate2::FlushDecompress::Finish).unwrap();
        proptest::prop_assert_eq!(status, flate2::Status::StreamEnd);
        proptest::prop_assert!(back == data);
    }
}
