use crate::reference::{Rng, relative, tolerance};
use crate::*;
use half::{bf16, f16};
use proptest::prelude::*;

const MODES: [AttentionMode; 4] =
    [AttentionMode::Auto, AttentionMode::Flash, AttentionMode::Split, AttentionMode::Plain];

/// Attention in f64, one query at a time.
fn plain<T: Scalar>(x: &AttentionInput<'_, T>) -> Vec<f64> {
    let AttentionShape { b, heads, kv_heads, tokens_q, tokens_kv, dim } = x.shape;
    let mut out = vec![0.0; b * tokens_q * heads * dim];
    let row = |t: &Tokens<'_, T>, i: usize, token: usize, head: usize| -> Vec<f64> {
        let at = i * t.batch_stride + token * t.row_stride + head * dim;
        t.data[at..at + dim].iter().map(|v| f64::from(v.to_f32())).collect()
    };
    for (i, head, query) in (0..b).flat_map(|i| (0..heads).flat_map(move |h| (0..tokens_q).map(move |q| (i, h, q)))) {
        let q = row(&x.q, i, query, head);
        let mut scores = vec![f64::NEG_INFINITY; tokens_kv];
        for (key, score) in scores.iter_mut().enumerate() {
            let k = row(&x.k, i, key, head / (heads / kv_heads));
            let plain = q.iter().zip(&k).map(|(a, b)| a * b).sum::<f64>() * f64::from(x.scale);
            *score = match x.mask {
                AttentionMask::None => plain,
                AttentionMask::Causal if key + tokens_q <= query + tokens_kv => plain,
                AttentionMask::KeyLengths(lengths) if key < lengths[i] => plain,
                AttentionMask::Additive { data, batch_stride, head_stride } => {
                    plain + f64::from(data[i * batch_stride + head * head_stride + query * tokens_kv + key])
                }
                _ => f64::NEG_INFINITY,
            };
        }
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top == f64::NEG_INFINITY {
            continue;
        }
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        let target = &mut out[((i * tokens_q + query) * heads + head) * dim..][..dim];
        for (key, score) in scores.iter().enumerate() {
            let weight = (score - top).exp() / total;
            row(&x.v, i, key, head / (heads / kv_heads))
                .iter()
                .zip(&mut *target)
                .for_each(|(v, out)| *out += weight * v);
        }
    }
    out
}

fn check<T: Scalar>(seed: u64, shape: AttentionShape) {
    let rng = &mut Rng::new(seed);
    let AttentionShape { b, heads, kv_heads, tokens_q, tokens_kv, dim } = shape;
    // Keys and values share a buffer, as a fused projection leaves them.
    let kv: Vec<T> = rng.scalars(b * tokens_kv * 2 * kv_heads * dim);
    let queries: Vec<T> = rng.scalars(b * tokens_q * heads * dim);
    let width = kv_heads * dim;
    let k = Tokens { data: &kv, row_stride: 2 * width, batch_stride: tokens_kv * 2 * width };
    let v = Tokens { data: &kv[width.min(kv.len())..], ..k };
    let lengths: Vec<usize> = (0..b).map(|_| rng.below(tokens_kv + 1)).collect();
    let mut summands = rng.values(heads * tokens_q * tokens_kv);
    summands.iter_mut().for_each(|v| {
        if rng.below(5) == 0 {
            *v = f32::NEG_INFINITY
        }
    });
    let masks = [
        AttentionMask::None,
        AttentionMask::Causal,
        AttentionMask::KeyLengths(&lengths),
        AttentionMask::Additive { data: &summands, batch_stride: 0, head_stride: tokens_q * tokens_kv },
    ];
    let drawn = rng.below(masks.len());
    let mask = masks[drawn];
    let scale = rng.pick(&[1.0, 2.5]) / (dim as f32).sqrt();
    for mode in MODES {
        let x =
            AttentionInput { q: Tokens::contiguous(&queries, tokens_q, heads * dim), k, v, shape, scale, mask, mode };
        let want = plain(&x);
        for isa in Isa::available() {
            let workspace = Workspace::new();
            let mut out = vec![T::from_f32(9.0); want.len()];
            attention(&x, &mut out, &Context::new(&workspace).with_isa(isa));
            let error = relative(&out, &want);
            assert!(
                error < tolerance::<T>(2e-5),
                "{} seed {seed} {shape:?} mask {drawn} {mode:?}: {error:e}",
                isa.name()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_attention_matches_the_plain_one(
        seed in any::<u64>(), b in 1usize..3, kv_heads in 1usize..3, per in 1usize..3, tokens_q in 1usize..40, tokens_kv in 1usize..90, dim in 1usize..70,
    ) {
        let shape = AttentionShape { b, heads: kv_heads * per, kv_heads, tokens_q, tokens_kv, dim };
        match seed % 3 {
            0 => check::<bf16>(seed, shape),
            1 => check::<f16>(seed, shape),
            _ => check::<f32>(seed, shape),
        }
    }

    #[test]
    fn any_attention_of_a_single_query_matches(
        seed in any::<u64>(), b in 1usize..3, kv_heads in 1usize..4, per in 1usize..8, tokens_kv in 0usize..90, dim in 1usize..140,
    ) {
        let shape = AttentionShape { b, heads: kv_heads * per, kv_heads, tokens_q: 1, tokens_kv, dim };
        match seed % 3 {
            0 => check::<bf16>(seed, shape),
            1 => check::<f16>(seed, shape),
            _ => check::<f32>(seed, shape),
        }
    }
}

#[test]
fn several_chunks_of_keys_and_queries_match() {
    for seed in 0..6 {
        check::<f32>(seed, AttentionShape { b: 1, heads: 2, kv_heads: 1, tokens_q: 200, tokens_kv: 700, dim: 40 });
    }
    check::<f32>(9, AttentionShape::of_self(1, 1, 300, 512));
}
