//! Places in three directions: time, height and width. A word has the same in all three; the tokens of a picture have
//! those of their place in it, and what follows goes on behind the longer side. Heads turn by all three, interleaved.

/// Places of all ids and the next one. `grids` are in tokens, one for each run of as many ids `picture` as it has.
pub(in super::super) fn places(ids: &[u32], picture: u32, grids: &[[usize; 3]]) -> (Vec<[u32; 3]>, u32) {
    let mut places = Vec::with_capacity(ids.len());
    let mut next = 0u32;
    let mut grids = grids.iter();
    while places.len() < ids.len() {
        let id = ids[places.len()];
        let grid = if id == picture { grids.next() } else { None };
        let Some(&[frames, rows, columns]) = grid else {
            places.push([next; 3]);
            next += 1;
            continue;
        };
        for frame in 0..frames {
            for row in 0..rows {
                places.extend((0..columns).map(|column| [frame, row, column].map(|place| next + place as u32)));
            }
        }
        next += rows.max(columns) as u32;
    }
    (places, next)
}

/// Angles `[places, head/2]`. Of the pairs of a head, the second of each three turns by height and the third by width,
/// as far as `sections` reach; all others by time.
pub(in super::super) fn rotary_angles(places: &[[u32; 3]], head: usize, base: f32, sections: [usize; 3]) -> Vec<f32> {
    let half = head / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / base.powf((2 * i) as f32 / head as f32)).collect();
    let direction = |pair: usize| match pair % 3 {
        direction @ (1 | 2) if pair < 3 * sections[direction] => direction,
        _ => 0,
    };
    let angle = |place: &[u32; 3], pair: usize| place[direction(pair)] as f32 * frequencies[pair];
    places
        .iter()
        .flat_map(|place| (0..half).map(move |pair| (place, pair)))
        .map(|(place, pair)| angle(place, pair))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_on_behind_the_longer_side() {
        // Two words, a picture of 2×3 tokens, a word, a picture of 1×1, a word.
        let ids = [5, 6, 9, 9, 9, 9, 9, 9, 7, 9, 8];
        let (places, next) = places(&ids, 9, &[[1, 2, 3], [1, 1, 1]]);
        let picture = [[2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4]];
        assert_eq!(places[..2], [[0; 3], [1; 3]]);
        assert_eq!(places[2..8], picture);
        assert_eq!(places[8..], [[5; 3], [6; 3], [7; 3]]);
        assert_eq!(next, 8);
    }

    #[test]
    fn directions_are_interleaved() {
        let angles = rotary_angles(&[[100, 10, 1]], 16, 1.0, [4, 2, 2]);
        assert_eq!(angles, [100.0, 10.0, 1.0, 100.0, 10.0, 1.0, 100.0, 100.0]);
    }
}
