//! Deflate for filtered photographs: runs of zeros, and a Huffman code made for each strip. Enters: bytes. Leaves: a
//! piece of a deflate stream that ends on a whole byte. Looking for other repetitions, which takes most of zlib's
//! time, gains next to nothing on noise; a code that fits the strip gains more.

use std::ops::Range;

use super::code::{Bits, Word, begin_block, end_block, words};

/// Literals, the end of the block, and lengths.
const SYMBOLS: usize = 286;
const END: usize = 256;
/// Four words and the seven bits left over fit into 64.
const MOST_BITS: usize = 14;
const LONGEST: usize = 258;

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let runs = zero_runs(data);
    let code = words(&frequencies(data, &runs), MOST_BITS);
    // One distance, of 1, and a second word that is never written.
    let distances = words(&[1, 1], 1);
    let mut bits = Bits::new(data.len() / 2 + 512);
    begin_block(&mut bits, &code, &distances);
    let mut at = 0;
    for run in runs {
        put_literals(&mut bits, &code, &data[at..run.start]);
        put_run(&mut bits, &code, distances[0], run.len());
        at = run.end;
    }
    put_literals(&mut bits, &code, &data[at..]);
    end_block(bits, code[END])
}

/// Where eight zeros or more stand together; some shorter than fifteen are passed over.
fn zero_runs(data: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, eight) in data.chunks_exact(8).enumerate() {
        if eight != [0; 8] {
            continue;
        }
        let start = index * 8;
        match runs.last_mut() {
            Some(run) if run.end == start => run.end += 8,
            _ => runs.push(start..start + 8),
        }
    }
    for run in &mut runs {
        run.start -= data[..run.start].iter().rev().take(7).take_while(|&&byte| byte == 0).count();
        run.end += data[run.end..].iter().take(7).take_while(|&&byte| byte == 0).count();
    }
    runs
}

fn frequencies(data: &[u8], runs: &[Range<usize>]) -> [u32; SYMBOLS] {
    // Neighbours are often equal; four tables let four counts go on at once.
    let mut tables = [[0u32; 256]; 4];
    let mut counts = [0u32; SYMBOLS];
    let mut count = |part: &[u8]| {
        let mut fours = part.chunks_exact(4);
        for four in &mut fours {
            for (table, &byte) in tables.iter_mut().zip(four) {
                table[byte as usize] += 1;
            }
        }
        for &byte in fours.remainder() {
            tables[0][byte as usize] += 1;
        }
    };
    let mut at = 0;
    for run in runs {
        count(&data[at..run.start]);
        at = run.end;
        counts[0] += 1;
        for (symbol, _, _) in lengths(run.len() - 1) {
            counts[symbol] += 1;
        }
    }
    count(&data[at..]);
    for (value, total) in counts[..256].iter_mut().enumerate() {
        *total += tables.iter().map(|table| table[value]).sum::<u32>();
    }
    counts[END] = 1;
    counts
}

/// `count` (at least 7) repetitions as length symbols, with their extra bits and the number of those.
fn lengths(count: usize) -> impl Iterator<Item = (usize, u64, u32)> {
    let mut left = count;
    std::iter::from_fn(move || {
        let len = match left {
            0 => return None,
            // What would be left over must again be a length.
            259 | 260 => 130,
            _ => left.min(LONGEST),
        };
        left -= len;
        Some(length_symbol(len))
    })
}

fn length_symbol(len: usize) -> (usize, u64, u32) {
    if len == LONGEST {
        return (285, 0, 0);
    }
    let offset = len - 3;
    if offset < 8 {
        return (257 + offset, 0, 0);
    }
    // Four symbols to each doubling.
    let extra_bits = offset.ilog2() - 2;
    (257 + 4 * extra_bits as usize + (offset >> extra_bits), (offset & ((1 << extra_bits) - 1)) as u64, extra_bits)
}

fn put_literals(bits: &mut Bits, code: &[Word; SYMBOLS], data: &[u8]) {
    let mut fours = data.chunks_exact(4);
    for four in &mut fours {
        let (mut value, mut count) = (0, 0);
        for &byte in four {
            let word = code[byte as usize];
            value |= u64::from(word.bits) << count;
            count += u32::from(word.len);
        }
        bits.put(value, count);
    }
    for &byte in fours.remainder() {
        let word = code[byte as usize];
        bits.put(word.bits.into(), word.len.into());
    }
}

/// A zero, then the order to repeat it.
fn put_run(bits: &mut Bits, code: &[Word; SYMBOLS], distance: Word, count: usize) {
    bits.put(code[0].bits.into(), code[0].len.into());
    for (symbol, extra, extra_bits) in lengths(count - 1) {
        let word = code[symbol];
        let mut value = u64::from(word.bits);
        let mut count = u32::from(word.len);
        value |= extra << count;
        count += extra_bits;
        value |= u64::from(distance.bits) << count;
        bits.put(value, count + u32::from(distance.len));
    }
}
