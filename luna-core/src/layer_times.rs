//! Where the time of a call goes, layer by layer, for those who ask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Notes the time of each layer in all calls that it is attached to. Clones share it.
///
/// Times are of the CPU: another device answers a layer before it is done.
///
/// ```
/// # fn main() -> luna_core::Result<()> {
/// use luna_core::{Call, Latent, LayerTimes, Runtime, vae::{DecodeOptions, Vae}};
/// let vae = Vae::moonlet(&Runtime::cpu()?)?;
/// let times = LayerTimes::new();
/// let options = DecodeOptions { call: Call::new().timed_by(&times), ..DecodeOptions::default() };
/// vae.decode(&Latent::new([1, 16, 3, 5], vec![0.0; 240])?, &options)?;
/// assert!(times.layers().iter().any(|layer| layer.name == "decoder.conv_in" && layer.calls == 1));
/// assert!(times.operations() > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct LayerTimes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    layers: Vec<LayerTime>,
    places: HashMap<String, usize>,
}

/// One layer, in all its calls.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerTime {
    /// Its canonical path; `attention` with its sizes for what has no weights.
    pub name: String,
    /// How often it ran: once for each tile, band, or batch.
    pub calls: u64,
    /// What it took in all.
    pub elapsed: Duration,
    /// Floating-point operations in all, by the direct algorithm (a multiply-add counts as two): products with weights, and
    /// scores and sums of attention. An algorithm may need fewer.
    pub operations: u64,
}

impl LayerTimes {
    /// Nothing noted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The layers in the order in which they ran first.
    pub fn layers(&self) -> Vec<LayerTime> {
        self.lock().layers.clone()
    }

    /// Operations of all layers.
    pub fn operations(&self) -> u64 {
        self.lock().layers.iter().map(|layer| layer.operations).sum()
    }

    pub(crate) fn add(&self, name: String, operations: u64, elapsed: Duration) {
        let mut noted = self.lock();
        let Noted { layers, places } = &mut *noted;
        let place = *places.entry(name).or_insert_with_key(|name| {
            layers.push(LayerTime { name: name.clone(), calls: 0, elapsed: Duration::ZERO, operations: 0 });
            layers.len() - 1
        });
        let layer = &mut layers[place];
        layer.calls += 1;
        layer.elapsed += elapsed;
        layer.operations += operations;
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // A panic between two changes of a note leaves at most that note wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
