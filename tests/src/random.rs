//! Values that follow from a name, the same here and in the fixtures' `make.py`.

use half::f16;

/// SplitMix64 started at the FNV-1a hash of the name, 24 bits of each word: values in 0..1.
pub fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (1..=count as u64).map(move |index| {
        let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 24)
    })
}

/// A model's tensor by its name: weights that keep the variance, norms near 1, biases near 0.
pub fn parameter(name: &str, shape: &[usize]) -> Vec<f16> {
    let centred = uniform(name, shape.iter().product()).map(|value| 2.0 * value - 1.0);
    let values: Vec<f64> = match shape {
        [_, inputs @ ..] if !inputs.is_empty() => {
            let bound = (3.0 / inputs.iter().product::<usize>() as f64).sqrt();
            centred.map(|value| value * bound).collect()
        }
        _ if name.ends_with(".weight") || name.ends_with(".scale") => centred.map(|value| 1.0 + 0.2 * value).collect(),
        _ => centred.map(|value| 0.1 * value).collect(),
    };
    values.into_iter().map(|value| f16::from_f32(value as f32)).collect()
}
