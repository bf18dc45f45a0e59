//! Denoisers: bit for bit the embedded step, with LoRAs, control, the first-block cache and attention modes.

use super::Server;
use luna_core::{
    AttentionMode, ErrorKind, Limits,
    client::{CallOptions, Client, ClientSettings},
    diffusion::{Denoiser, ForwardInput, ForwardOptions},
    lora::{LoraFile, LoraStack, ResolveOptions},
    protocol::{Fault, ForwardCache, LoraUse, ModelForward, Reason, TensorRef},
};
use luna_tests::{diffusion, lora};
use std::fs;

/// A daemon with the fixture `sd15_ldm`, and the same model here.
struct Bench {
    _folder: tempfile::TempDir,
    server: Server,
    case: diffusion::DenoiserCase,
    denoiser: Denoiser,
}

impl Bench {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let case = diffusion::case("sd15_ldm");
        let model = case.write(folder.path());
        let denoiser = Denoiser::open(&model, lora::runtime()).unwrap();
        let server = Server::start(&format!("--model sd15={} {options}", model.display()));
        Self { _folder: folder, server, case, denoiser }
    }

    fn client(&self, name: &str) -> Client {
        let mut settings = ClientSettings::default();
        settings.name = Some(name.to_owned());
        Client::connect(self.server.address.clone(), settings).unwrap()
    }
}

fn request() -> ModelForward {
    ModelForward { model: Some("sd15".to_owned()), ..ModelForward::default() }
}

fn uses(files: &[(&str, f64)]) -> Vec<LoraUse> {
    let one = |&(name, model): &(&str, f64)| LoraUse { lora: name.to_owned(), model, clip: 1.0 };
    files.iter().map(one).collect()
}

#[test]
fn every_denoiser_of_the_fixtures_gives_the_embedded_step() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("--model-root {}", folder.path().display()));
    let client = server.client();
    for name in ["sd15_ldm", "sdxl_diffusers", "flux_dev_ldm", "z_image_single_file"] {
        let case = diffusion::case(name);
        let path = case.write(folder.path());
        let model = client.put_model(&path, None).unwrap();
        assert!(model.components.iter().any(|kind| kind == "diffusion"), "{name}: {model:?}");
        let denoiser = Denoiser::open(&path, lora::runtime()).unwrap();
        let request = ModelForward { model: Some(model.model_id), ..ModelForward::default() };
        let with_control = ForwardInput { control: case.control(), ..case.input() };
        for input in [case.input(), with_control] {
            let (ours, answer) = client.model_forward(&input, &request, &CallOptions::default()).unwrap();
            assert_eq!(ours, denoiser.forward(&input, &ForwardOptions::default()).unwrap().prediction, "{name}");
            assert_eq!(answer.reply.model.family, denoiser.family().name());
            assert!(answer.reply.loras.is_none() && answer.head.fallbacks.is_empty());
        }
    }
}

#[test]
fn stacks_come_with_each_request_and_are_kept_apart() {
    let place = tempfile::tempdir().unwrap();
    for name in ["kohya", "loha", "locon"] {
        fs::copy(lora::path("sd15_ldm", name), place.path().join(name).with_extension("safetensors")).unwrap();
    }
    let bench = Bench::new(&format!("--lora-folder {}", place.path().display()));
    let stacks: [&[(&str, f64)]; 3] = [&[("kohya", 1.0)], &[("loha", 0.5), ("kohya", -0.25)], &[("locon", 2.0)]];
    let plain = bench.denoiser.forward(&bench.case.input(), &ForwardOptions::default()).unwrap().prediction;
    let expected: Vec<_> = stacks
        .iter()
        .map(|files| {
            let add = |stack: LoraStack, (name, strength): &(&str, f64)| {
                let path = place.path().join(name).with_extension("safetensors");
                stack.with(LoraFile::open(path, &Limits::default()).unwrap().into(), *strength, 1.0).unwrap()
            };
            let stack = files.iter().fold(LoraStack::new(), add);
            let resolved = stack.resolve(&bench.denoiser, &ResolveOptions::default()).unwrap();
            let options = ForwardOptions { patches: Some(resolved.patches), ..ForwardOptions::default() };
            (bench.denoiser.forward(&bench.case.input(), &options).unwrap().prediction, resolved.coverage)
        })
        .collect();
    // Side by side, from one client each.
    std::thread::scope(|scope| {
        for (number, (files, (prediction, coverage))) in stacks.iter().zip(&expected).enumerate() {
            let (bench, plain) = (&bench, &plain);
            scope.spawn(move || {
                let client = bench.client(&number.to_string());
                let request = ModelForward { loras: uses(files), ..request() };
                for _ in 0..4 {
                    let (ours, answer) =
                        client.model_forward(&bench.case.input(), &request, &CallOptions::default()).unwrap();
                    assert_eq!(ours, *prediction, "{files:?}");
                    assert_ne!(ours, *plain);
                    let loras = answer.reply.loras.unwrap();
                    assert_eq!((loras.mode.as_str(), &loras.coverage), ("functional", coverage));
                }
            });
        }
    });
    let client = bench.client("a");
    let any = CallOptions::default();
    assert_eq!(client.model_forward(&bench.case.input(), &request(), &any).unwrap().0, plain, "nothing is left behind");

    // Merged, one stack after the other: each takes the other's place, and unloading lets go of the last.
    for (files, (prediction, _)) in stacks.iter().zip(&expected) {
        let request = ModelForward { loras: uses(files), lora_mode: Some("merged".to_owned()), ..request() };
        for _ in 0..2 {
            let (ours, answer) = client.model_forward(&bench.case.input(), &request, &any).unwrap();
            assert_eq!(answer.reply.loras.unwrap().mode, "merged");
            let apart = luna_tests::text::difference(ours.data(), prediction.data());
            assert!(apart < 1e-4, "{files:?}: {apart:.1e}");
            assert_eq!(client.lora_cache_stats().unwrap().merged, 1);
        }
    }
    client.unload_models(&[]).unwrap();
    assert_eq!(client.lora_cache_stats().unwrap().merged, 0);
    let wrong = ModelForward { lora_mode: Some("melted".to_owned()), ..request() };
    let error = client.model_forward(&bench.case.input(), &wrong, &any).map(drop).unwrap_err();
    assert!(error.to_string().contains("`melted`"), "{error}");
}

#[test]
fn a_missing_or_unfit_lora_stops_the_request_and_says_why() {
    let bench = Bench::new("");
    let client = bench.client("a");
    let ask = |loras, strict| {
        let request = ModelForward { loras, strict, ..request() };
        client.model_forward(&bench.case.input(), &request, &CallOptions::default())
    };
    let error = ask(uses(&[("ink", 1.0)]), false).map(drop).unwrap_err();
    let fault = Fault::within(&error).unwrap();
    assert_eq!((fault.reason, &*fault.missing), (Some(Reason::NeedLora), &["ink".to_owned()][..]));
    // Sent, and made for another model.
    let flux = client.put_lora(&lora::path("flux_dev_ldm", "kohya")).unwrap();
    let error = ask(uses(&[(&flux.lora_id, 1.0)]), false).map(drop).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("nothing of the LoRA"), "{error}");
    let own = client.put_lora(&lora::path("sd15_ldm", "kohya")).unwrap();
    let (_, answer) = ask(uses(&[(&own.lora_id, 1.0), (&flux.lora_id, 1.0)]), false).unwrap();
    let coverage = answer.reply.loras.unwrap().coverage;
    assert!(coverage.files[0].is_complete() && coverage.files[1].applied.is_empty(), "{coverage:?}");
    assert!(ask(uses(&[(&own.lora_id, 1.0), (&flux.lora_id, 1.0)]), true).is_err(), "strict");
    let (_, answer) = ask(uses(&[(&own.lora_id, 1.0)]), true).unwrap();
    assert!(answer.reply.loras.unwrap().coverage.is_complete());
}

#[test]
fn a_peft_folder_is_sent_with_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let case = diffusion::case("sdxl_diffusers");
    let path = case.write(folder.path());
    let server = Server::start(&format!("--model sdxl={}", path.display()));
    let client = server.client();
    let denoiser = Denoiser::open(&path, lora::runtime()).unwrap();
    let stack = lora::stack("sdxl_diffusers", &[("peft_rslora", 0.75)]);
    let resolved = stack.resolve(&denoiser, &ResolveOptions::default()).unwrap();
    let options = ForwardOptions { patches: Some(resolved.patches), ..ForwardOptions::default() };
    let put = client.put_lora(&lora::path("sdxl_diffusers", "peft_rslora")).unwrap();
    let request = ModelForward { loras: uses(&[(&put.lora_id, 0.75)]), ..ModelForward::default() };
    let (ours, _) = client.model_forward(&case.input(), &request, &CallOptions::default()).unwrap();
    assert_eq!(ours, denoiser.forward(&case.input(), &options).unwrap().prediction);
}

#[test]
fn the_first_block_cache_keeps_clients_and_sequences_apart() {
    let bench = Bench::new("");
    let (one, other) = (bench.client("one"), bench.client("other"));
    let step = |client: &Client, sequence: &str, most: Option<u32>| {
        let cache = ForwardCache {
            sequence: sequence.to_owned(),
            threshold: Some(0.5),
            start_percent: Some(0.0),
            end_percent: None,
            max_consecutive_hits: most,
        };
        let request = ModelForward { cache: Some(cache), ..request() };
        let (_, answer) = client.model_forward(&bench.case.input(), &request, &CallOptions::default()).unwrap();
        answer.reply.report.cache.unwrap()
    };
    assert!(!step(&one, "positive", None).hit, "nothing is known yet");
    let second = step(&one, "positive", None);
    assert!(second.hit && second.consecutive_hits == 1 && second.difference == Some(0.0), "{second:?}");
    assert!(!step(&one, "negative", None).hit, "another sequence");
    assert!(!step(&other, "positive", None).hit, "another client");
    assert!(!step(&one, "positive", Some(1)).hit, "one hit in a row is the most");
    // It ends with the client's last connection.
    drop(one);
    super::until("its end", || super::wire::status(&other)["connections"] == 1);
    assert!(!step(&bench.client("one"), "positive", None).hit);
    assert!(step(&other, "positive", None).hit);
    let cache = ForwardCache {
        sequence: "x".to_owned(),
        threshold: Some(-1.0),
        start_percent: None,
        end_percent: None,
        max_consecutive_hits: None,
    };
    let wrong = ModelForward { cache: Some(cache), ..request() };
    assert!(other.model_forward(&bench.case.input(), &wrong, &CallOptions::default()).is_err());
}

#[test]
fn an_attention_mode_holds_for_its_client_and_survives_a_new_connection() {
    let bench = Bench::new("");
    let (one, other) = (bench.client("one"), bench.client("other"));
    let mode = |client: &Client, attention: Option<&str>| {
        let request = ModelForward { attention: attention.map(str::to_owned), ..request() };
        let (_, answer) = client.model_forward(&bench.case.input(), &request, &CallOptions::default()).unwrap();
        answer.reply.report.attention
    };
    let set = one.set_attention_mode(AttentionMode::Split).unwrap();
    assert_eq!((set.mode.as_str(), set.previous.as_str()), ("split", "auto"));
    assert_eq!((mode(&one, None), mode(&one, Some("pytorch"))), ("split".to_owned(), "pytorch".to_owned()));
    assert_eq!(mode(&other, None), "auto");
    // Another connection of the same name ends the first one's.
    let twin = bench.client("one");
    twin.call(&luna_core::protocol::Reset {}, &[]).unwrap();
    drop(twin);
    super::until("its end", || super::wire::status(&other)["connections"] == 1);
    assert_eq!(mode(&one, None), "split", "said again");
}

#[test]
fn half_precision_that_overflows_is_done_again_in_f32_and_told() {
    let bench = Bench::new("");
    let client = bench.client("a");
    let huge: Vec<f32> = bench.case.input().x.data().iter().map(|value| value * 3e4).collect();
    let input = ForwardInput {
        x: luna_core::ArrayView::new(bench.case.input().x.shape(), &huge).unwrap(),
        ..bench.case.input()
    };
    let options = ForwardOptions { precision: "f16".parse().unwrap(), ..ForwardOptions::default() };
    let embedded = bench.denoiser.forward(&input, &options).unwrap();
    assert_eq!(embedded.report.fallbacks.len(), 1, "{:?}", embedded.report);
    let request = ModelForward { precision: Some("f16".to_owned()), ..request() };
    let (ours, answer) = client.model_forward(&input, &request, &CallOptions::default()).unwrap();
    assert_eq!(ours, embedded.prediction);
    assert_eq!(answer.head.fallbacks[0].name, "widened_to_f32");
    assert_eq!(answer.reply.report.precision, "f32");
}

#[test]
fn tensors_that_mean_nothing_are_refused() {
    let bench = Bench::new("");
    let client = bench.client("a");
    for name in ["controls/input/0", "control/left/0", "control/input/999", "noise"] {
        let tensors = [TensorRef::f32(name, &[1], &[1.0])];
        let error = client.call(&request(), &tensors).map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(name), "{error}");
    }
    let error = client.call(&request(), &[]).map(drop).unwrap_err();
    assert!(error.to_string().contains("`x`"), "{error}");
}
