//! Encodes a picture with the VAE that the library carries, and decodes the latent again.

use luna_core::{Image, Runtime, vae::Vae};

fn main() -> luna_core::Result<()> {
    let (height, width) = (48, 64);
    let gradient = (0..height * width * 3).map(|i| (i / 3 % width) as f32 / width as f32).collect();
    let picture = Image::new([1, height, width, 3], gradient)?;
    let vae = Vae::moonlet(&Runtime::cpu()?)?;
    let encoded = vae.encode(&picture, &Default::default())?;
    println!("latent {:?} in {:?}", encoded.latent.shape(), encoded.report.elapsed);
    let decoded = vae.decode(&encoded.latent, &Default::default())?;
    let pairs = decoded.image.data().iter().zip(picture.data());
    let error = pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>() / picture.data().len() as f32;
    println!("mean squared error {error:.5}");
    Ok(())
}
