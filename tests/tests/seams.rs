//! Tiles on the bundled photograph: no farther from the whole decode than three-pass tiling is, at the cost of one pass.
//! The rival is computed here as ComfyUI does it: the mean of three tilings (`tile`×`tile`, half as wide and twice as
//! high, twice as wide and half as high), each feathered linearly over the overlap.

use luna_core::{
    Latent, Limits, Runtime,
    picture::read_picture,
    vae::{DecodeOptions, TileChoice, Tiling, Vae},
};
use luna_tests::{vae::relative_error, workspace};

/// Decodes one rectangle of the latent, `[height, width, 3]`.
fn decode(vae: &Vae, latent: &Latent, rows: [usize; 2], columns: [usize; 2]) -> Vec<f32> {
    let [_, channels, height, width] = latent.shape();
    let mut cut = Vec::with_capacity(channels * (rows[1] - rows[0]) * (columns[1] - columns[0]));
    for channel in 0..channels {
        for row in rows[0]..rows[1] {
            let line = (channel * height + row) * width;
            cut.extend_from_slice(&latent.data()[line + columns[0]..line + columns[1]]);
        }
    }
    let cut = Latent::new([1, channels, rows[1] - rows[0], columns[1] - columns[0]], cut).unwrap();
    let options = DecodeOptions { tiles: TileChoice::Never, ..Default::default() };
    vae.decode(&cut, &options).unwrap().image.into_data()
}

/// Where tiles of this size start, and how long they are.
fn spans(side: usize, tile: usize, overlap: usize) -> Vec<[usize; 2]> {
    if side <= tile {
        return vec![[0, side]];
    }
    (0..side - overlap).step_by(tile - overlap).map(|start| [start, side.min(start + tile)]).collect()
}

/// How much each pixel of a tile's side counts.
fn feather(length: usize, overlap: usize) -> Vec<f32> {
    let mut weights = vec![1.0; length];
    if overlap < length {
        for step in 0..overlap {
            let weight = (step + 1) as f32 / overlap as f32;
            weights[step] *= weight;
            weights[length - 1 - step] *= weight;
        }
    }
    weights
}

/// One feathered tiling, and how many latent pixels it worked on.
fn one_pass(vae: &Vae, latent: &Latent, tile: [usize; 2], overlap: usize) -> (Vec<f32>, usize) {
    let ([_, _, height, width], factor) = (latent.shape(), vae.factor());
    let (mut sums, mut weights) =
        (vec![0.0; height * width * factor * factor * 3], vec![0.0; height * width * factor * factor]);
    let mut cost = 0;
    for rows in spans(height, tile[0], overlap) {
        for columns in spans(width, tile[1], overlap) {
            cost += (rows[1] - rows[0]) * (columns[1] - columns[0]);
            let values = decode(vae, latent, rows, columns);
            let across = feather((columns[1] - columns[0]) * factor, overlap * factor);
            for (y, down) in feather((rows[1] - rows[0]) * factor, overlap * factor).iter().enumerate() {
                for (x, across) in across.iter().enumerate() {
                    let at = (rows[0] * factor + y) * width * factor + columns[0] * factor + x;
                    weights[at] += down * across;
                    let from = (y * (columns[1] - columns[0]) * factor + x) * 3;
                    (0..3).for_each(|channel| sums[at * 3 + channel] += down * across * values[from + channel]);
                }
            }
        }
    }
    sums.chunks_exact_mut(3).zip(&weights).for_each(|(pixel, weight)| pixel.iter_mut().for_each(|v| *v /= weight));
    (sums, cost)
}

fn largest(ours: &[f32], theirs: &[f32]) -> f32 {
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn one_pass_is_as_near_the_whole_as_three() {
    let vae = Vae::moonlet(&Runtime::cpu().unwrap()).unwrap();
    let photograph = workspace::root().join("examples/photos/chelsea.png");
    let image = read_picture(&photograph, &Limits::default()).unwrap();
    let latent = vae.encode(&image, &Default::default()).unwrap().latent;
    let [_, _, height, width] = latent.shape();
    let whole = decode(&vae, &latent, [0, height], [0, width]);
    for (tile, overlap) in [(32, 8), (24, 6)] {
        let tiles = TileChoice::Tiles(Tiling { tile, overlap });
        let ours = vae.decode(&latent, &DecodeOptions { tiles, ..Default::default() }).unwrap();
        let (tiling, count) = ours.report.tiling.unwrap();
        let passes = [[tile, tile], [tile * 2, tile / 2], [tile / 2, tile * 2]]
            .map(|tile| one_pass(&vae, &latent, tile, overlap));
        let mut three = vec![0.0; whole.len()];
        for (pass, _) in &passes {
            three.iter_mut().zip(pass).for_each(|(sum, value)| *sum += value / 3.0);
        }
        let ours = ours.image.into_data();
        let (near, rival) = (relative_error(&ours, &whole), relative_error(&three, &whole));
        println!(
            "tile {tile} overlap {overlap}: {near:.2e} against {rival:.2e} of three passes (largest {:.1e} and {:.1e}); \
             {count} tiles, {} latent pixels at most, against {}",
            largest(&ours, &whole),
            largest(&three, &whole),
            count * tiling.tile * tiling.tile,
            passes.iter().map(|pass| pass.1).sum::<usize>(),
        );
        assert!(near <= rival, "tile {tile} overlap {overlap}: {near:.3e} against {rival:.3e} of three passes");
        assert!(count * tile * tile <= passes[0].1 * 3 / 2, "one pass' cost: {count} tiles");
    }
}
