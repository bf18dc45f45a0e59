use super::*;
use crate::ErrorKind;

const BREAK: Group = Group::Break;

/// A group of `count` tokens, told apart by weight.
fn group(count: usize, weight: f64) -> Group {
    Group::Tokens(vec![WeightedToken { piece: TokenPiece::Id(5), weight }; count])
}

/// How many tokens of each weight each chunk holds, in order, without what stands around them.
fn filled(groups: impl IntoIterator<Item = Group>) -> Vec<Vec<(f64, usize)>> {
    let chunks = fill(&ChunkRule::CLIP_L, groups.into_iter().collect(), 10_000).unwrap();
    let runs = |chunk: &Vec<WeightedToken>| {
        assert_eq!((chunk.len(), chunk[0].id(), chunk[76].id()), (77, Some(49406), Some(49407)));
        let words = chunk.iter().filter(|token| token.id() == Some(5)).map(|token| token.weight).collect::<Vec<_>>();
        words.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
    };
    chunks.iter().map(runs).collect()
}

#[test]
fn an_empty_prompt_is_one_empty_chunk() {
    assert_eq!(filled([]), [vec![]]);
    assert_eq!(filled([group(0, 2.0)]), [vec![]]);
}

#[test]
fn short_groups_are_moved_and_long_ones_broken() {
    assert_eq!(filled([group(75, 2.0)]), [[(2.0, 75)]]);
    assert_eq!(filled([group(76, 2.0)]), [[(2.0, 75)], [(2.0, 1)]]);
    assert_eq!(filled([group(70, 2.0), group(7, 3.0)]), [[(2.0, 70)], [(3.0, 7)]]);
    assert_eq!(filled([group(70, 2.0), group(8, 3.0)]), [vec![(2.0, 70), (3.0, 5)], vec![(3.0, 3)]]);
    assert_eq!(filled([group(75, 2.0), group(8, 3.0)]), [[(2.0, 75)], [(3.0, 8)]]);
    assert_eq!(filled([group(160, 2.0)]), [[(2.0, 75)], [(2.0, 75)], [(2.0, 10)]]);
}

#[test]
fn breaks_end_chunks_but_the_last_one_opens_none() {
    let word = || group(1, 2.0);
    let full = || vec![(2.0, 1)];
    assert_eq!(filled([word(), BREAK, word()]), [full(), full()]);
    assert_eq!(filled([word(), BREAK, group(0, 1.0)]), [full()]);
    assert_eq!(filled([BREAK]), [vec![]]);
    assert_eq!(filled([BREAK, BREAK, word()]), [vec![], vec![], full()]);
}

#[test]
fn rules_pad_with_their_own_token_and_to_their_own_length() {
    let ids = |rule: ChunkRule| {
        let chunks = fill(&rule, vec![group(2, 1.0)], 1000).unwrap();
        chunks[0].iter().filter_map(WeightedToken::id).take(5).collect::<Vec<_>>()
    };
    assert_eq!(ids(ChunkRule::CLIP_G), [49406, 5, 5, 49407, 0]);
    assert_eq!(ids(ChunkRule::t5(4)), [5, 5, 1, 0]);
    assert_eq!(ids(ChunkRule::language_model(9)), [5, 5]);
    assert_eq!(fill(&ChunkRule::language_model(9), vec![], 1000).unwrap(), [[WeightedToken::plain(9)]]);
    assert_eq!(ChunkRule::CLIP_L.empty_chunk(3), [49406, 49407, 49407]);
    assert_eq!(ChunkRule::language_model(9).empty_chunk(2), [9, 9]);
}

#[test]
fn padding_counts_towards_the_limit() {
    let breaks = || vec![BREAK, BREAK, group(1, 1.0)];
    assert!(fill(&ChunkRule::CLIP_L, breaks(), 3 * 77).is_ok());
    let error = fill(&ChunkRule::CLIP_L, breaks(), 3 * 77 - 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}
