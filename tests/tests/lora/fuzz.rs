//! The fuzz target over its saved names, each as it is and with a few bytes changed.

use luna_tests::{fuzz, random, workspace};
use std::fs;

#[test]
fn the_fuzz_target_holds_on_saved_names() {
    let seeds = workspace::files("fuzz/seeds/lora");
    assert!(seeds.len() >= 6, "the saved inputs are missing");
    for path in seeds {
        let input = fs::read(workspace::root().join(&path)).unwrap();
        fuzz::lora(&input);
        let mut places = random::uniform(&path, 600);
        for _ in 0..100 {
            let mut changed = input.clone();
            for _ in 0..3 {
                let (place, value) = (places.next().unwrap(), places.next().unwrap());
                changed[(place * input.len() as f64) as usize] = (value * 128.0) as u8;
            }
            fuzz::lora(&changed);
        }
    }
}
