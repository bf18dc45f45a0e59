//! Merged weights: the same results, one copy a model at a time, released in every way.

use luna_core::{Call, CancelToken, ErrorKind, diffusion::ForwardOptions, lora::*};
use luna_tests::{
    lora::{Model, stack},
    vae::relative_error,
};
use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

const STACKS: [&[(&str, f64)]; 4] = [
    &[("kohya", 0.8), ("locon", 0.5)],
    &[("loha", 1.0), ("lokr", -0.6), ("dora", 0.7)],
    &[("diff", 1.0)],
    &[("kohya", 0.4), ("glora", 0.9), ("diff", -0.3), ("kohya_fp8", 0.2)],
];

fn merged(copies: &MergedCopies, model: &Model, resolved: &Resolved) -> Prepared {
    copies.prepare(&model.denoiser, &resolved.patches, ApplyMode::Merged, &Call::new()).unwrap()
}

fn predict(model: &Model, prepared: &Prepared) -> Vec<f32> {
    let options = ForwardOptions { patches: Some(prepared.patches.clone()), ..ForwardOptions::default() };
    model.denoiser.forward(&model.case.input(), &options).unwrap().prediction.into_data()
}

#[test]
fn all_modes_give_the_same() {
    let model = Model::open("sd15_ldm");
    let copies = MergedCopies::new(1 << 30);
    let digest = model.denoiser.digest().unwrap();
    for files in STACKS {
        let resolved = model.resolve(&stack("sd15_ldm", files));
        let functional = model.predict(Some(&resolved));
        let many = ApplyMode::Auto { forwards: NonZeroUsize::new(100) };
        for mode in [ApplyMode::Functional, ApplyMode::Merged, many] {
            let prepared = copies.prepare(&model.denoiser, &resolved.patches, mode, &Call::new()).unwrap();
            let wanted = if mode == ApplyMode::Functional { mode } else { ApplyMode::Merged };
            assert_eq!((prepared.mode, prepared.not_merged), (wanted, None));
            assert_eq!(prepared.patches.is_merged(), wanted == ApplyMode::Merged);
            assert_eq!(prepared.patches.digest(), resolved.patches.digest());
            let error = relative_error(&predict(&model, &prepared), &functional);
            assert!(error < 1e-5, "{files:?} {mode:?}: {error:.2e}");
        }
        assert_eq!((copies.copies(), copies.bytes()), (0, 0));
    }
    assert_eq!(model.denoiser.digest().unwrap(), digest);
}

#[test]
fn equal_stacks_share_and_others_wait() {
    let model = Model::open("sd15_ldm");
    let copies = MergedCopies::new(1 << 30);
    let [one, same, other] = [STACKS[0], STACKS[0], STACKS[1]].map(|files| model.resolve(&stack("sd15_ldm", files)));
    let first = merged(&copies, &model, &one);
    let second = merged(&copies, &model, &same);
    assert!(Arc::ptr_eq(&first.patches, &second.patches) && copies.copies() == 1);
    let auto = ApplyMode::Auto { forwards: NonZeroUsize::new(100) };
    let busy = copies.prepare(&model.denoiser, &other.patches, auto, &Call::new()).unwrap();
    assert_eq!((busy.mode, busy.not_merged), (ApplyMode::Functional, Some(NotMerged::InUse)));
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let third = merged(&copies, &model, &other);
            sender.send(predict(&model, &third)).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err(), "it did not wait");
        drop(first);
        assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait for all");
        drop(second);
        let result = receiver.recv_timeout(Duration::from_secs(60)).expect("it waits for nobody");
        assert!(relative_error(&result, &model.predict(Some(&other))) < 1e-5);
    });
    assert_eq!(copies.copies(), 0);
}

/// Eight threads with three stacks: nobody ever sees another's weights, and there is never a second copy.
#[test]
fn threads_take_turns() {
    let model = Model::open("sd15_ldm");
    let copies = MergedCopies::new(1 << 30);
    let resolved: Vec<_> = STACKS[..3].iter().map(|files| model.resolve(&stack("sd15_ldm", files))).collect();
    let alone: Vec<_> = resolved.iter().map(|resolved| predict(&model, &merged(&copies, &model, resolved))).collect();
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (model, copies, resolved, alone, most) = (&model, &copies, &resolved, &alone, &most);
            scope.spawn(move || {
                for round in 0..3 {
                    let which = (thread + round) % 3;
                    let prepared = merged(copies, model, &resolved[which]);
                    most.fetch_max(copies.copies(), Ordering::Relaxed);
                    assert_eq!(predict(model, &prepared), alone[which]);
                }
            });
        }
    });
    assert_eq!((most.into_inner(), copies.copies()), (1, 0));
}

#[test]
fn a_copy_is_released_by_panics_errors_and_cancellation() {
    let model = Model::open("sd15_ldm");
    let copies = MergedCopies::new(1 << 30);
    let [one, other] = [STACKS[0], STACKS[1]].map(|files| model.resolve(&stack("sd15_ldm", files)));
    let panicked = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let _held = merged(&copies, &model, &one);
            panic!("with a copy in hand");
        });
        work.join().is_err()
    });
    assert!(panicked && copies.copies() == 0);
    // In the middle of merging.
    let call = Call::new().on_progress(|progress| {
        if progress.done == 3 {
            std::panic::resume_unwind(Box::new("in the middle"));
        }
    });
    let panicked = std::thread::scope(|scope| {
        scope.spawn(|| copies.prepare(&model.denoiser, &one.patches, ApplyMode::Merged, &call)).join().is_err()
    });
    assert!(panicked && copies.copies() == 0);
    let token = CancelToken::new();
    let stop = token.clone();
    let call = Call::new().cancelled_by(&token).on_progress(move |_| stop.cancel());
    let error = copies.prepare(&model.denoiser, &one.patches, ApplyMode::Merged, &call).unwrap_err();
    assert_eq!((error.kind(), copies.copies()), (ErrorKind::Cancelled, 0));
    // While waiting.
    let held = merged(&copies, &model, &one);
    let error = copies.prepare(&model.denoiser, &other.patches, ApplyMode::Merged, &call).unwrap_err();
    assert_eq!((error.kind(), copies.copies()), (ErrorKind::Cancelled, 1));
    drop(held);
    assert!(merged(&copies, &model, &other).patches.is_merged());
    assert!(model.predict(None).iter().all(|value| value.is_finite()));
}

#[test]
fn budgets_and_models_are_checked() {
    let (model, twin) = (Model::open("sd15_ldm"), Model::open("sd15_ldm"));
    let resolved = model.resolve(&stack("sd15_ldm", STACKS[0]));
    let small = MergedCopies::new(1000);
    let error = small.prepare(&model.denoiser, &resolved.patches, ApplyMode::Merged, &Call::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    let auto = |forwards| ApplyMode::Auto { forwards: NonZeroUsize::new(forwards) };
    let prepare =
        |copies: &MergedCopies, mode| copies.prepare(&model.denoiser, &resolved.patches, mode, &Call::new()).unwrap();
    assert_eq!(prepare(&small, auto(100)).not_merged, Some(NotMerged::NoRoom));
    let copies = MergedCopies::new(1 << 30);
    assert_eq!(prepare(&copies, auto(1)).not_merged, Some(NotMerged::FewForwards));
    assert_eq!(prepare(&copies, auto(0)).not_merged, Some(NotMerged::FewForwards));
    // Merged weights are of one model in memory, even if another is just like it.
    let prepared = prepare(&copies, ApplyMode::Merged);
    let options = ForwardOptions { patches: Some(prepared.patches), ..ForwardOptions::default() };
    let error = twin.denoiser.forward(&twin.case.input(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    // Unmerged ones fit both.
    assert!(twin.predict(Some(&resolved)) == model.predict(Some(&resolved)));
}
