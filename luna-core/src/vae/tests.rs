//! What holds for any VAE, on the embedded one. Equality with other implementations is tested from outside.

use super::*;
use crate::{Call, CancelToken, Image, Latent};
use rand::{Rng, SeedableRng};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

fn moonlet() -> Vae {
    Vae::moonlet(&Runtime::cpu().unwrap()).unwrap()
}

/// Smooth colours with a little noise.
fn picture(batch: usize, height: usize, width: usize) -> Image {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let data = (0..batch * height * width * 3).map(|i| {
        let (row, column) = (i / 3 / width % height, i / 3 % width);
        let wave = ((row as f32) * 0.07 + (i % 3) as f32).sin() * ((column as f32) * 0.05).cos();
        (0.5 + 0.4 * wave + random.random_range(-0.05..0.05)).clamp(0.0, 1.0)
    });
    Image::new([batch, height, width, 3], data.collect()).unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    (error / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

#[test]
fn a_batch_is_as_its_pictures_alone() {
    let vae = moonlet();
    let both = picture(2, 32, 56);
    let latent = vae.encode(&both, &EncodeOptions::default()).unwrap().latent;
    let image = vae.decode(&latent, &DecodeOptions::default()).unwrap().image;
    for index in 0..2 {
        let one = Image::new([1, 32, 56, 3], both.picture(index).to_vec()).unwrap();
        let alone = vae.encode(&one, &EncodeOptions::default()).unwrap().latent;
        let size = alone.data().len();
        assert_eq!(&latent.data()[index * size..][..size], alone.data());
        let decoded = vae.decode(&alone, &DecodeOptions::default()).unwrap().image;
        assert_eq!(image.picture(index), decoded.data());
    }
}

#[test]
fn threads_share_one_vae_and_its_digest_stays() {
    let vae = moonlet();
    let before = vae.digest().unwrap();
    let image = picture(1, 40, 40);
    let expected = vae.encode(&image, &EncodeOptions::default()).unwrap().latent;
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                assert_eq!(vae.encode(&image, &EncodeOptions::default()).unwrap().latent, expected);
            });
        }
    });
    assert_eq!(vae.digest().unwrap(), before);
}

#[test]
fn half_precision_stays_near() {
    let vae = moonlet();
    let image = picture(1, 48, 72);
    let exact = vae.encode(&image, &EncodeOptions::default()).unwrap().latent;
    let decoded = vae.decode(&exact, &DecodeOptions::default()).unwrap().image;
    for precision in [Precision::Bf16, Precision::F16] {
        let encoded = vae.encode(&image, &EncodeOptions { precision, ..EncodeOptions::default() }).unwrap();
        assert_eq!((encoded.report.precision, encoded.report.fallbacks), (precision, vec![]));
        assert!(difference(encoded.latent.data(), exact.data()) < 2e-2);
        let half = vae.decode(&exact, &DecodeOptions { precision, ..DecodeOptions::default() }).unwrap().image;
        assert!(difference(half.data(), decoded.data()) < 2e-2);
    }
}

#[test]
fn values_past_half_precision_are_done_again_in_f32_and_reported() {
    let vae = moonlet();
    let shape = [1, vae.latent_channels(), 4, 4];
    let latent = Latent::new(shape, vec![1e6; shape.iter().product()]).unwrap();
    let options = DecodeOptions { precision: Precision::F16, ..DecodeOptions::default() };
    let decoded = vae.decode(&latent, &options).unwrap();
    assert_eq!(decoded.report.precision, Precision::F32);
    assert!(matches!(decoded.report.fallbacks[..], [Fallback::Widened { from: Precision::F16, non_finite: 1.. }]));
    assert_eq!(decoded.image, vae.decode(&latent, &DecodeOptions::default()).unwrap().image);
}

#[test]
fn little_memory_gives_tiles_and_says_so() {
    let vae = moonlet();
    let image = picture(1, 256, 384);
    let whole = vae.encode(&image, &EncodeOptions::default()).unwrap();
    assert_eq!(whole.report.tiling, None);
    let memory_limit = Some(vae.memory_for(24, 24, Precision::F32));
    let tiled = vae.encode(&image, &EncodeOptions { memory_limit, ..EncodeOptions::default() }).unwrap();
    let Some((tiling, count)) = tiled.report.tiling else { panic!("not tiled: {:?}", tiled.report) };
    assert!(tiling.tile >= 24 && count > 1);
    assert!(matches!(tiled.report.fallbacks[..], [Fallback::Tiled { .. }]));
    assert!(difference(tiled.latent.data(), whole.latent.data()) < 0.2);

    let decode = |options: DecodeOptions| vae.decode(&whole.latent, &options);
    let exact = decode(DecodeOptions::default()).unwrap().image;
    let tiled = decode(DecodeOptions { memory_limit, ..DecodeOptions::default() }).unwrap();
    assert!(tiled.report.tiling.is_some());
    assert!(difference(tiled.image.data(), exact.data()) < 0.1);

    let never = DecodeOptions { memory_limit, tiles: TileChoice::Never, ..DecodeOptions::default() };
    assert_eq!(decode(never).unwrap_err().kind(), ErrorKind::OutOfMemory);
    let nothing = DecodeOptions { memory_limit: Some(1 << 20), ..DecodeOptions::default() };
    assert_eq!(decode(nothing).unwrap_err().kind(), ErrorKind::OutOfMemory);
}

#[test]
fn images_are_made_twice_only_where_memory_is_short() {
    let (vae, piece) = (moonlet(), [512, 384]);
    let needed = BandSizes::ALL.map(|bands| vae.memory_by(&bands, piece, Precision::F32));
    assert!(needed[0] >= needed[1] && needed[1] >= needed[2] && needed[0] > needed[2], "{needed:?}");
    assert_eq!(needed[2], vae.memory_for(512, 384, Precision::F32));
    let within = |limit| vae.choose_bands(piece, Precision::F32, Some(limit));
    assert_eq!((within(u64::MAX), within(needed[0])), (BandSizes::WHOLE, BandSizes::WHOLE));
    assert_eq!((within(needed[2]), within(1)), (BandSizes::SPARED, BandSizes::SPARED));
}

#[test]
fn sides_are_cropped_padded_or_refused() {
    let vae = moonlet();
    let image = picture(1, 37, 50);
    let encode = |sizes| vae.encode(&image, &EncodeOptions { sizes, ..EncodeOptions::default() });
    let cropped = encode(SizeRule::Crop).unwrap();
    assert_eq!((cropped.size, cropped.latent.shape()[2..].to_vec()), ([32, 48], vec![4, 6]));
    let about_the_centre = image.crop(2, 1, 32, 48).unwrap();
    assert_eq!(vae.encode(&about_the_centre, &EncodeOptions::default()).unwrap().latent, cropped.latent);
    assert_eq!(encode(SizeRule::Pad).unwrap().size, [40, 56]);
    assert_eq!(encode(SizeRule::Refuse).unwrap_err().kind(), ErrorKind::InvalidInput);
    let tiny = picture(1, 7, 50);
    assert_eq!(vae.encode(&tiny, &EncodeOptions::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn samples_follow_their_seed() {
    let vae = moonlet();
    let image = picture(1, 32, 32);
    let sample = |seed| {
        let posterior = Posterior::Sample { seed };
        vae.encode(&image, &EncodeOptions { posterior, ..EncodeOptions::default() }).unwrap().latent
    };
    let mean = vae.encode(&image, &EncodeOptions::default()).unwrap().latent;
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
    assert_ne!(sample(1), mean);
}

#[test]
fn wrong_latents_are_refused_with_the_reason() {
    let vae = moonlet();
    let decode = |latent: Latent| vae.decode(&latent, &DecodeOptions::default()).unwrap_err();
    let error = decode(Latent::new([1, 4, 4, 4], vec![0.0; 64]).unwrap());
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("16 channels") && error.to_string().contains("4 channels"), "{error}");
    let mut values = vec![0.0; 256];
    values[3] = f32::NAN;
    assert_eq!(decode(Latent::new([1, 16, 4, 4], values).unwrap()).kind(), ErrorKind::NonFinite);
}

#[test]
fn a_scaled_latent_is_unscaled_first() {
    let vae = moonlet();
    let latent = vae.encode(&picture(1, 32, 32), &EncodeOptions::default()).unwrap().latent;
    let latent = latent.with_scale(Some(LatentScale::FLUX), false);
    let plain = vae.decode(&latent, &DecodeOptions::default()).unwrap().image;
    let scaled = vae.decode(&latent.scaled().unwrap(), &DecodeOptions::default()).unwrap().image;
    assert!(difference(scaled.data(), plain.data()) < 1e-4);
}

#[test]
fn progress_counts_up_to_its_total_and_cancelling_stops() {
    let vae = moonlet();
    let last = Arc::new(AtomicUsize::new(0));
    let (heard, token) = (last.clone(), CancelToken::new());
    let call = Call::new().on_progress(move |progress| {
        assert_eq!(heard.fetch_add(1, Ordering::SeqCst) + 1, progress.done);
        if progress.done == progress.total {
            heard.fetch_add(1000, Ordering::SeqCst);
        }
    });
    let image = picture(1, 32, 32);
    vae.encode(&image, &EncodeOptions { call, ..EncodeOptions::default() }).unwrap();
    assert!(last.load(Ordering::SeqCst) > 1000, "the last step was not reported");

    token.cancel();
    let call = Call::new().cancelled_by(&token);
    let error = vae.encode(&image, &EncodeOptions { call, ..EncodeOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn files_without_a_vae_say_what_they_are() {
    let header = r#"{"decoder.conv_in.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    let checkpoint = Checkpoint::from_bytes("odd", bytes, &Limits::default()).unwrap();
    let error = Vae::load(&checkpoint, &Runtime::cpu().unwrap()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("AutoencoderKL") && error.to_string().contains("it lacks"), "{error}");
}
