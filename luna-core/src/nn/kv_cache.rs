//! Keys and values of the tokens that a decoder has seen. One sequence's, owned by whoever generates it: it can be
//! changed only through `&mut`, so that no two callers share one.

use super::Tensor;
use crate::Result;

/// Rows that a cache grows by, at least.
const STEP: usize = 64;

/// The caches of all layers.
pub(crate) struct KvCache {
    layers: Vec<LayerCache>,
}

/// One layer's keys and values, `[1, capacity, width]` each, of which the first rows are in use.
#[derive(Default)]
pub(crate) struct LayerCache {
    store: Option<(Tensor, Tensor)>,
    used: usize,
    /// Rows to make room for when the first arrive.
    expected: usize,
}

impl KvCache {
    /// An empty cache for this many layers. `expected` tokens fit before it grows.
    pub(crate) fn new(layers: usize, expected: usize) -> Self {
        let layer = || LayerCache { expected, ..LayerCache::default() };
        Self { layers: std::iter::repeat_with(layer).take(layers).collect() }
    }

    /// The cache of one layer.
    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    /// Bytes it holds.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        let stores = self.layers.iter().filter_map(|layer| layer.store.as_ref());
        stores.map(|(keys, values)| bytes(keys) + bytes(values)).sum()
    }
}

impl LayerCache {
    /// Adds keys and values `[1, tokens, width]` and gives all there are now, `[1, all tokens, width]` each.
    pub(super) fn extend(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let tokens = keys.dim(1)?;
        let needed = self.used + tokens;
        let (key_store, value_store) = match self.store.take() {
            Some((keys, values)) if keys.dim(1)? >= needed => (keys, values),
            old => {
                let capacity = needed.max(self.expected).max(2 * self.used).next_multiple_of(STEP);
                (
                    self.grown(old.as_ref().map(|old| &old.0), keys, capacity)?,
                    self.grown(old.as_ref().map(|old| &old.1), values, capacity)?,
                )
            }
        };
        key_store.slice_set(keys, 1, self.used)?;
        value_store.slice_set(values, 1, self.used)?;
        self.used = needed;
        let all = (key_store.narrow(1, 0, needed)?, value_store.narrow(1, 0, needed)?);
        self.store = Some((key_store, value_store));
        Ok(all)
    }

    /// Room for `capacity` rows like those of `like`, with what was there before.
    fn grown(&self, old: Option<&Tensor>, like: &Tensor, capacity: usize) -> Result<Tensor> {
        let store = Tensor::zeros((1, capacity, like.dim(2)?), like.dtype(), like.device())?;
        if let Some(old) = old.filter(|_| self.used > 0) {
            store.slice_set(&old.narrow(1, 0, self.used)?.contiguous()?, 1, 0)?;
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn rows(first: f32, count: usize) -> Tensor {
        let values = (0..2 * count).map(|i| first + i as f32).collect();
        Tensor::from_vec(values, (1, count, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn what_went_in_comes_out_however_it_grows() {
        let mut cache = KvCache::new(1, 3);
        let (mut whole, mut seen) = (Vec::new(), 0);
        for (index, count) in [3, 1, 70, 1, 200].into_iter().enumerate() {
            let (keys, values) = (rows(index as f32 * 1000.0, count), rows(-1.0 - index as f32 * 1000.0, count));
            whole.extend(keys.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            let (all, other) = cache.layer(0).extend(&keys, &values).unwrap();
            seen += count;
            assert_eq!(all.flatten_all().unwrap().to_vec1::<f32>().unwrap(), whole);
            assert_eq!(other.dims(), [1, seen, 2]);
        }
        assert!(cache.bytes() >= 2 * 4 * 2 * seen as u64);
    }
}
