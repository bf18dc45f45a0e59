//! Huffman codes as deflate has them. Enters: how often each symbol occurs. Leaves: lengths, codes, and the
//! description of the lengths that stands in front of a block. Knows nothing of pictures.

/// Bits, written from the lowest up.
pub(super) struct Bits {
    out: Vec<u8>,
    buffer: u64,
    count: u32,
}

impl Bits {
    pub(super) fn new(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity), buffer: 0, count: 0 }
    }

    /// Adds up to 56 bits; `value` has no bit above them.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 56 && self.count < 8 && (count == 64 || value >> count == 0));
        self.buffer |= value << self.count;
        self.count += count;
        // Always eight bytes, of which the whole ones are kept: no branch that depends on the data.
        let whole = (self.count / 8) as usize;
        let len = self.out.len();
        self.out.extend_from_slice(&self.buffer.to_le_bytes());
        self.out.truncate(len + whole);
        self.buffer = self.buffer.checked_shr(whole as u32 * 8).unwrap_or(0);
        self.count %= 8;
    }

    /// Fills up the last byte and returns all.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.out.push(self.buffer as u8);
        }
        self.out
    }
}

/// A symbol's code, its bits in the order they are written, and their number.
#[derive(Clone, Copy, Default)]
pub(super) struct Word {
    pub(super) bits: u16,
    pub(super) len: u8,
}

/// The code that spends the fewest bits on symbols of these frequencies, none of more than `most` bits. Where fewer
/// than two occur, the first two get a bit each, as some readers ask for a complete code.
pub(super) fn words<const N: usize>(frequencies: &[u32; N], most: usize) -> [Word; N] {
    let mut used: Vec<(u32, usize)> = frequencies
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count > 0)
        .map(|(symbol, &count)| (count, symbol))
        .collect();
    for (symbol, &count) in frequencies.iter().take(2).enumerate() {
        if used.len() < 2 && count == 0 {
            used.push((1, symbol));
        }
    }
    used.sort_unstable();
    let mut counts = depths(&used, most);
    limit(&mut counts, most);
    // The rarest symbols get the longest words.
    let mut lens = [0u8; N];
    let mut rarest = used.iter();
    for len in (1..=most).rev() {
        for &(_, symbol) in rarest.by_ref().take(counts[len]) {
            lens[symbol] = len as u8;
        }
    }
    canonical(&lens, &counts)
}

/// How many symbols have words of each length in the best code, those beyond `most` counted there.
fn depths(used: &[(u32, usize)], most: usize) -> Vec<usize> {
    // Two queues: the symbols from the rarest up, and the pairs made of them, which come out in order by themselves.
    let symbols = used.len();
    let mut weights: Vec<u64> = used.iter().map(|&(count, _)| u64::from(count)).collect();
    let mut parents = vec![0; 2 * symbols - 1];
    let (mut symbol, mut pair) = (0, symbols);
    for node in symbols..2 * symbols - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let next = if symbol < symbols && (pair >= node || weights[symbol] <= weights[pair]) {
                &mut symbol
            } else {
                &mut pair
            };
            weight += weights[*next];
            parents[*next] = node;
            *next += 1;
        }
        weights.push(weight);
    }
    let mut depth = vec![0; 2 * symbols - 1];
    let mut counts = vec![0; most + 1];
    for node in (0..2 * symbols - 2).rev() {
        depth[node] = depth[parents[node]] + 1;
        if node < symbols {
            counts[depth[node].min(most)] += 1;
        }
    }
    counts
}

/// Words cut down to `most` bits take more room than there is; shorter ones are split until all fit.
fn limit(counts: &mut [usize], most: usize) {
    let mut room: usize = (1..=most).map(|len| counts[len] << (most - len)).sum();
    while room > 1 << most {
        counts[most] -= 1;
        if let Some(len) = (1..most).rev().find(|&len| counts[len] > 0) {
            counts[len] -= 1;
            counts[len + 1] += 2;
        }
        room -= 1;
    }
}

/// Codes follow from the lengths: shorter first, then in the order of the symbols.
fn canonical<const N: usize>(lens: &[u8; N], counts: &[usize]) -> [Word; N] {
    let mut next = vec![0u16; counts.len() + 1];
    for len in 1..counts.len() {
        next[len + 1] = (next[len] + counts[len] as u16) << 1;
    }
    let mut words = [Word::default(); N];
    for (word, &len) in words.iter_mut().zip(lens) {
        if len > 0 {
            let code = &mut next[len as usize];
            *word = Word { bits: code.reverse_bits() >> (16 - len), len };
            *code += 1;
        }
    }
    words
}

/// The order in which the lengths of the lengths' own code are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Starts a block that is not the last, with codes of its own.
pub(super) fn begin_block(bits: &mut Bits, literals: &[Word], distances: &[Word]) {
    let used = literals.iter().rposition(|word| word.len > 0).map_or(257, |last| (last + 1).max(257));
    let lens: Vec<u8> = literals[..used].iter().chain(distances).map(|word| word.len).collect();
    let packed = pack_lens(&lens);
    let mut frequencies = [0; 19];
    for &(symbol, _, _) in &packed {
        frequencies[symbol] += 1;
    }
    let code = words(&frequencies, 7);
    let written = ORDER.iter().rposition(|&symbol| code[symbol].len > 0).map_or(4, |last| (last + 1).max(4));
    bits.put(0b100, 3);
    bits.put(used as u64 - 257, 5);
    bits.put(distances.len() as u64 - 1, 5);
    bits.put(written as u64 - 4, 4);
    for &symbol in &ORDER[..written] {
        bits.put(code[symbol].len.into(), 3);
    }
    for (symbol, extra, extra_bits) in packed {
        bits.put(code[symbol].bits.into(), code[symbol].len.into());
        bits.put(extra, extra_bits);
    }
}

/// Ends a block, and fills up to a whole byte with an empty stored one, so that another piece may follow.
pub(super) fn end_block(mut bits: Bits, end: Word) -> Vec<u8> {
    bits.put(end.bits.into(), end.len.into());
    bits.put(0, 3);
    let mut out = bits.into_bytes();
    out.extend([0, 0, 0xff, 0xff]);
    out
}

/// Lengths with their repetitions written as such: symbol, extra bits, their number.
fn pack_lens(lens: &[u8]) -> Vec<(usize, u64, u32)> {
    let mut packed = Vec::new();
    for run in lens.chunk_by(|a, b| a == b) {
        let mut left = run.len();
        if run[0] == 0 {
            while left >= 11 {
                let count = left.min(138);
                packed.push((18, count as u64 - 11, 7));
                left -= count;
            }
            if left >= 3 {
                packed.push((17, left as u64 - 3, 3));
                left = 0;
            }
        } else {
            packed.push((run[0].into(), 0, 0));
            left -= 1;
            while left >= 3 {
                let count = left.min(6);
                packed.push((16, count as u64 - 3, 2));
                left -= count;
            }
        }
        packed.extend((0..left).map(|_| (run[0].into(), 0, 0)));
    }
    packed
}
