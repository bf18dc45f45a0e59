//! Chains of convolutions, band by band, must say what whole images do.

use super::*;

/// Layers of the tiny autoencoders in bands of any size are those of whole images.
#[test]
fn a_chain_in_bands_is_that_of_whole_images() {
    let runtime = Runtime::cpu().unwrap();
    let block = |name: &str| [0, 2, 4].map(|i| [format!("{name}.conv.{i}.weight"), format!("{name}.conv.{i}.bias")]);
    let names: Vec<_> = ["b", "c"].iter().flat_map(|name| block(name)).flatten().collect();
    let inner = names.iter().map(|name| (&**name, if name.ends_with("bias") { &[24][..] } else { &[24, 24, 3, 3] }));
    let ends: [(&str, &[usize]); 3] =
        [("up.weight", &[24, 24, 3, 3]), ("half.weight", &[40, 24, 3, 3]), ("last.weight", &[3, 24, 3, 3])];
    let checkpoint = checkpoint(&inner.chain(ends).collect::<Vec<_>>());
    let weights = weights(&checkpoint, &runtime);
    let blocks = ["b", "c"].map(|name| ReluBlock::load(&weights.at(name), 24).unwrap());
    let conv = |name: &str, spec| Conv2d::load(&weights.at(name), spec).unwrap();
    let (up, last) = (conv("up", ConvSpec::same(24, 24)), conv("last", ConvSpec::same(24, 3)));
    let half = conv("half", ConvSpec { stride: 2, ..ConvSpec::same(24, 40) });

    let doubled = ConvCall { upsample: true, ..ConvCall::default() };
    let relu = ConvCall { after: Activation::Relu, ..ConvCall::default() };

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (dtype, tolerance) in [(DType::F32, 4e-6), (DType::BF16, 6e-3)] {
        // Heights that bands of 12 and 24 rows divide, and that leave 1, 2 and 3 rows over; less than a band; one row.
        for (height, rows) in [(48, 12), (25, 12), (50, 24), (15, 12), (5, 24), (1, 12), (2, 12)] {
            let x = random(&mut rng, &[2, height, 9, 24]).to_dtype(dtype).unwrap();
            in_pass(|pass| {
                let chained = |doubled: usize, chain: Chain| -> Result<Tensor> {
                    let band = rows * doubled * 9 * 24 * dtype.size_in_bytes();
                    match chain.forward_by(band, x.copy()?, pass)? {
                        Chained::Done(y) => Ok(y),
                        Chained::Unfit(_) => panic!("these layers are a chain"),
                    }
                };
                let chain = Chain::default;
                // In the memory of its input.
                let one = chained(1, chain().block(&blocks[0]))?;
                assert_close(&one, &blocks[0].forward(x.copy()?, pass)?, tolerance);
                let two = chained(1, chain().block(&blocks[0]).block(&blocks[1]))?;
                assert_close(&two, &blocks[1].forward(blocks[0].forward(x.copy()?, pass)?, pass)?, tolerance);
                let end = chain().conv(&up, true, Activation::None).block(&blocks[0]);
                let decoder = chained(2, end.conv(&last, false, Activation::None))?;
                let doubled = up.forward_with(&x, doubled, pass)?;
                assert_close(&decoder, &last.forward(&blocks[0].forward(doubled, pass)?, pass)?, tolerance);
                let start = chain().conv(&up, false, Activation::Relu).block(&blocks[0]);
                let encoder = chained(1, start.conv(&half, false, Activation::None))?;
                let first = up.forward_with(&x, relu, pass)?;
                assert_close(&encoder, &half.forward(&blocks[0].forward(first, pass)?, pass)?, tolerance);
                Ok(())
            });
        }
    }
}

/// What has no place in a chain goes back as it came: a block that widens its input, and a single convolution.
#[test]
fn a_chain_gives_back_what_it_cannot_take() {
    let runtime = Runtime::cpu().unwrap();
    let checkpoint = checkpoint(&[
        ("b.conv.0.weight", &[8, 4, 3, 3]),
        ("b.conv.2.weight", &[8, 8, 3, 3]),
        ("b.conv.4.weight", &[8, 8, 3, 3]),
        ("b.skip.weight", &[8, 4, 1, 1]),
        ("c.weight", &[4, 4, 3, 3]),
    ]);
    let weights = weights(&checkpoint, &runtime);
    let block = ReluBlock::load(&weights.at("b"), 4).unwrap();
    let conv = Conv2d::load(&weights.at("c"), ConvSpec::same(4, 4)).unwrap();
    let x = random(&mut ChaCha8Rng::seed_from_u64(4), &[1, 6, 5, 4]);
    in_pass(|pass| {
        let single = Chain::default().conv(&conv, false, Activation::None);
        for chain in [Chain::default().block(&block), single] {
            let Chained::Unfit(same) = chain.forward(x.copy()?, pass)? else { panic!("no chain of these") };
            assert_close(&same, &x, f64::MIN_POSITIVE);
        }
        Ok(())
    });
}
