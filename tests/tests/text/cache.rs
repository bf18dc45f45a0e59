//! The conditioning cache: what hits and what never may.

use luna_core::{
    PictureSizes, Precision,
    text::{Conditioner, ConditioningCache, EmbeddingFolders, Prompt, TextOptions, TokenIds},
};
use luna_tests::text::{CLIP_L, clip, clip_model, fixture, model_as, qwen3};
use std::{num::NonZeroUsize, sync::Arc};

#[test]
fn the_same_prompt_is_encoded_once() {
    let model = clip_model(&CLIP_L);
    let cache = ConditioningCache::new(1 << 20);
    let conditioner = Conditioner::new(&[&model]).unwrap().with_cache(&cache);
    let options = TextOptions::default();
    let first = conditioner.encode(&["a cat".into(), "a dog".into()], &options).unwrap();
    assert!(first.prompts.iter().all(|prompt| !prompt.cached));
    let second = conditioner.encode(&["a bird".into(), "a cat".into()], &options).unwrap();
    assert_eq!(second.prompts.iter().map(|prompt| prompt.cached).collect::<Vec<_>>(), [false, true]);
    assert!(Arc::ptr_eq(&second.prompts[1].conditioning, &first.prompts[0].conditioning));
    assert_eq!(second.sequences, 1);
    let usage = cache.usage();
    assert_eq!((usage.entries, usage.hits, usage.misses), (3, 1, 3));
    // Sizes are carried along and are no part of what is remembered.
    let sizes = PictureSizes::uncropped(640, 480);
    let sized = conditioner.encode(&[Prompt::new("a cat").sized(sizes)], &options).unwrap();
    assert!(sized.prompts[0].cached);
    assert_eq!((sized.first().sizes(), first.first().sizes()), (Some(sizes), None));
}

#[test]
fn whatever_changes_a_conditioning_misses() {
    let (model, folders) = (clip_model(&CLIP_L), EmbeddingFolders::new([fixture("text/embeddings")]).unwrap());
    let mut changed = clip(&CLIP_L);
    changed[0].2[0] += 1.0;
    let changed = model_as(&changed, None);
    let cache = ConditioningCache::new(1 << 24);
    let base = TextOptions::default();
    let cases = [
        (&model, "a cat", base.clone()),
        (&model, "(a cat:1.1)", base.clone()),
        (&model, "embedding:dawn", base.clone()),
        (&changed, "a cat", base.clone()),
        (&model, "a cat", TextOptions { precision: Precision::Bf16, ..base.clone() }),
        (&model, "a cat", TextOptions { clip_skip: NonZeroUsize::new(2), ..base.clone() }),
    ];
    for round in [false, true] {
        for (model, prompt, options) in &cases {
            let conditioner = Conditioner::new(&[model]).unwrap().with_cache(&cache).with_embeddings(&folders);
            let encoded = conditioner.encode(&[(*prompt).into()], options).unwrap();
            assert_eq!(encoded.prompts[0].cached, round, "{prompt} {options:?}");
        }
    }
    // The same file under a stated name is known by that name.
    let stated = clip_model(&CLIP_L).with_digest(model.digest().unwrap());
    let conditioner = Conditioner::new(&[&stated]).unwrap().with_cache(&cache);
    assert!(conditioner.encode(&["a cat".into()], &base).unwrap().prompts[0].cached);
}

#[test]
fn an_embedding_file_that_changes_misses() {
    let place = tempfile::tempdir().unwrap();
    let copy = |from: &str| std::fs::copy(fixture("text/embeddings").join(from), place.path().join("x.safetensors"));
    let model = clip_model(&CLIP_L);
    let cache = ConditioningCache::new(1 << 20);
    let folders = EmbeddingFolders::new([place.path()]).unwrap();
    let conditioner = Conditioner::new(&[&model]).unwrap().with_cache(&cache).with_embeddings(&folders);
    let cached = || conditioner.encode(&["embedding:x".into()], &TextOptions::default()).unwrap().prompts[0].cached;
    copy("dawn.safetensors").unwrap();
    assert_eq!([cached(), cached()], [false, true]);
    copy("tide.safetensors").unwrap();
    assert_eq!([cached(), cached()], [false, true]);
}

#[test]
fn tokens_and_masks_are_part_of_the_key() {
    let model = model_as(&qwen3(), None);
    let cache = ConditioningCache::new(1 << 20);
    let conditioner = Conditioner::new(&[&model]).unwrap().with_cache(&cache);
    let inputs = [
        TokenIds { ids: vec![1, 2, 3], mask: None },
        TokenIds { ids: vec![1, 2, 4], mask: None },
        TokenIds { ids: vec![1, 2, 3], mask: Some(vec![true, true, false]) },
    ];
    for round in [false, true] {
        let encoded = conditioner.encode_ids(&inputs, &TextOptions::default()).unwrap();
        assert!(encoded.prompts.iter().all(|prompt| prompt.cached == round));
    }
}
