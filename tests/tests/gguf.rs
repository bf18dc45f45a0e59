//! GGUF files: what llama.cpp's own package writes is read as it reads it, and quantised models answer what ComfyUI and
//! transformers answer with the weights that it widens.

use luna_core::{
    ArrayView, ErrorKind, Limits, Precision, Runtime,
    checkpoint::{Checkpoint, Dialect, ElementType, Family},
    diffusion::{Denoiser, ForwardInput, ForwardOptions},
    text::{Conditioner, TextModel, TextOptions, TokenIds},
};
use luna_tests::{
    gguf_file::{self, GgufCase, Value, put_tensor, put_text, start},
    vae::relative_error,
    workspace,
};
use std::sync::LazyLock;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::cpu().unwrap());

fn open(bytes: Vec<u8>) -> luna_core::Result<Checkpoint> {
    Checkpoint::from_bytes("model.gguf", bytes, &Limits::default())
}

/// `types.gguf`, written by llama.cpp's package.
fn types() -> Checkpoint {
    let path = workspace::root().join("tests/fixtures/gguf/types.gguf");
    Checkpoint::open(path, &Limits::default()).unwrap()
}

#[test]
fn what_llama_cpp_writes_is_read() {
    let file = types();
    let metadata = file.metadata();
    for (key, value) in [
        ("general.architecture", "nothing"),
        ("value.uint8", "7"),
        ("value.int8", "-7"),
        ("value.uint16", "700"),
        ("value.int16", "-700"),
        ("value.uint32", "70000"),
        ("value.int32", "-70000"),
        ("value.float32", "0.5"),
        ("value.uint64", "1099511627776"),
        ("value.int64", "-1099511627776"),
        ("value.float64", "0.1"),
        ("value.bool", "true"),
        ("value.string", "Käse"),
        ("list.short", "3, 1, 2"),
    ] {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(
        !metadata.contains_key("list.texts") && !metadata.contains_key("list.numbers"),
        "vocabularies are left out"
    );
    let types: Vec<_> = file.tensors().map(|tensor| (tensor.name.to_owned(), tensor.element)).collect();
    assert_eq!(types.len(), 8);
    for (name, element) in types {
        let expected = name.strip_prefix("t.").unwrap_or("Q8_0");
        assert_eq!(element.name(), expected);
    }
    // Its innermost side is 32: a block. ComfyUI-GGUF notes what it reshaped.
    assert_eq!(file.shape("reshaped").unwrap(), [2, 3, 4, 8]);
    assert_eq!(file.shape("t.Q4_K").unwrap(), [3, 512]);
}

/// Our own writer, on which the other tests stand, writes the same tensors.
#[test]
fn the_tests_write_what_llama_cpp_writes() {
    let file = types();
    for name in ["F32", "F16", "Q8_0", "Q4_K", "Q5_K", "Q6_K"] {
        let own = open(gguf_file::file(&[gguf_file::tensor(&format!("t.{name}"), &[3, 512], name)], &[])).unwrap();
        let (own, theirs) = (own.tensor(&format!("t.{name}")), file.tensor(&format!("t.{name}")));
        assert_eq!((own.unwrap().bytes, own.unwrap().element), (theirs.unwrap().bytes, theirs.unwrap().element));
    }
}

/// Every value, to the last bit, as llama.cpp's package and candle's quantised tensors widen it.
#[test]
fn blocks_are_widened_as_others_widen_them() {
    use candle_core::{
        Device,
        quantized::{GgmlDType, QStorage, QTensor},
    };
    let expected = workspace::root().join("tests/fixtures/gguf/types.safetensors");
    let (file, expected) = (types(), Checkpoint::open(expected, &Limits::default()).unwrap());
    let mut quantised = 0;
    for tensor in file.tensors() {
        let theirs = expected.tensor(tensor.name).unwrap();
        assert_eq!(theirs.shape, tensor.shape, "{}", tensor.name);
        let theirs: Vec<f32> = theirs.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        assert_eq!(tensor.to_f32().unwrap(), theirs, "{}", tensor.name);
        let dtype = match tensor.element {
            ElementType::Q8_0 => GgmlDType::Q8_0,
            ElementType::Q4K => GgmlDType::Q4K,
            ElementType::Q5K => GgmlDType::Q5K,
            ElementType::Q6K => GgmlDType::Q6K,
            _ => continue,
        };
        let storage = QStorage::from_data(tensor.bytes.into(), &Device::Cpu, dtype).unwrap();
        let shape = [theirs.len() / 32, 32];
        let shape = if dtype == GgmlDType::Q8_0 { shape } else { [theirs.len() / 256, 256] };
        let candle = QTensor::new(storage, &shape[..]).unwrap().dequantize(&Device::Cpu).unwrap();
        assert_eq!(candle.flatten_all().unwrap().to_vec1::<f32>().unwrap(), theirs, "{} by candle", tensor.name);
        quantised += 1;
    }
    assert_eq!(quantised, 5);
}

fn denoiser(case: &GgufCase, family: Family) -> Denoiser {
    let checkpoint = open(case.model(&[])).unwrap();
    let found = checkpoint.recognise();
    assert_eq!((found.components.len(), found.components[0].family), (1, family));
    assert!(found.components[0].elements.contains_key(&ElementType::Q4K));
    Denoiser::load(&checkpoint, &RUNTIME, &Default::default()).unwrap()
}

#[test]
fn quantised_denoisers_answer_what_comfyui_answers() {
    for (name, family) in [("flux", Family::Flux), ("z_image", Family::ZImage)] {
        let case = GgufCase::open(name);
        let denoiser = denoiser(&case, family);
        let [(x, xs), (_, times), (context, contexts), (shape, out)] =
            ["x", "timesteps", "context", "out"].map(|name| case.get(name));
        let pooled = (name == "flux").then(|| (case.get("y"), case.get("guidance").1));
        let input = ForwardInput {
            y: pooled.as_ref().map(|((shape, values), _)| ArrayView::new(shape, values).unwrap()),
            guidance: pooled.as_ref().map(|(_, guidance)| &**guidance),
            ..ForwardInput::new(ArrayView::new(&x, &xs).unwrap(), &times, ArrayView::new(&context, &contexts).unwrap())
        };
        for (precision, tolerance) in [(Precision::F32, 2e-4), (Precision::Bf16, 3e-2)] {
            let options = ForwardOptions { precision, ..Default::default() };
            let predicted = denoiser.forward(&input, &options).unwrap();
            assert_eq!(predicted.prediction.shape()[..], shape);
            let error = relative_error(predicted.prediction.data(), &out);
            assert!(error < tolerance, "{name} in {precision}: {error:.2e}");
        }
    }
}

/// A quantised model takes no more memory than its file: panels of 32 rows are filled up, little else.
#[test]
fn weights_stay_quantised_in_memory() {
    let case = GgufCase::open("flux");
    let held = denoiser(&case, Family::Flux).weight_bytes();
    assert!(held < case.stored_bytes() * 11 / 10, "{held} bytes held of {} stored", case.stored_bytes());
    assert!(held < case.parameters() * 3 / 2, "{held} bytes for {} parameters", case.parameters());
}

#[test]
fn quantised_text_encoders_answer_what_transformers_answers() {
    let numbers = [
        ("qwen3.rope.freq_base", Value::F32(500_000.0)),
        ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("qwen3.block_count", Value::U32(3)),
    ];
    for (name, family, metadata) in [("t5", Family::T5, &[][..]), ("qwen3", Family::Qwen3, &numbers[..])] {
        let case = GgufCase::open(name);
        let checkpoint = open(case.model(metadata)).unwrap();
        let found = checkpoint.recognise();
        assert_eq!((found.components.len(), found.components[0].family), (1, family));
        assert_eq!((found.components[0].dialect, found.unclaimed), (Dialect::LlamaCpp, 0));
        let model = TextModel::load(&checkpoint, &RUNTIME, &Default::default()).unwrap();
        assert!(model.encoders().next().unwrap().unused.is_empty());
        let tokens = TokenIds { ids: case.integers("ids"), mask: None };
        let encoded = Conditioner::new(&[&model]).unwrap().encode_ids(&[tokens], &TextOptions::default()).unwrap();
        let (shape, out) = case.get("out");
        assert_eq!(encoded.first().shape()[..], shape);
        let error = relative_error(encoded.first().data(), &out);
        assert!(error < 2e-4, "{name}: {error:.2e}");
    }
}

#[test]
fn types_that_are_not_read_are_named() {
    for (number, says) in [(2, "Q4_0"), (10, "Q2_K"), (20, "IQ"), (99, "type 99")] {
        let mut bytes = start(3, 1, 0);
        put_tensor(&mut bytes, "a", &[256], number, 0);
        bytes.resize(4096, 0);
        let error = open(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(says) && error.to_string().contains("Q4_K_M"), "{error}");
    }
}

#[test]
fn headers_above_the_limits_are_refused() {
    let case = GgufCase::open("t5").model(&[]);
    let small = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Checkpoint::from_bytes("t5.gguf", case.clone(), &limits).unwrap_err().kind()
    };
    assert_eq!(small(|limits| limits.tensors = 10), ErrorKind::LimitExceeded);
    assert_eq!(small(|limits| limits.header_bytes = 500), ErrorKind::LimitExceeded);
    assert_eq!(small(|limits| limits.tensor_rank = 1), ErrorKind::LimitExceeded);
}

/// Cut anywhere, it is an error and no panic; the data is as long as the last tensor needs.
#[test]
fn every_truncation_is_refused() {
    let mut tensors = vec![gguf_file::tensor("a", &[2, 256], "Q4_K"), gguf_file::tensor("b", &[3, 32], "Q8_0")];
    tensors.push(gguf_file::tensor("c", &[32], "F32"));
    let bytes = gguf_file::file(&tensors, &[("general.alignment", Value::U32(32)), ("x", Value::Text("y".into()))]);
    assert!(open(bytes.clone()).is_ok());
    for end in 0..bytes.len() {
        let error = open(bytes[..end].to_vec()).expect_err(&format!("{end} of {} bytes", bytes.len()));
        assert!(matches!(error.kind(), ErrorKind::InvalidFile | ErrorKind::Unsupported), "{end}: {error}");
    }
}

#[test]
fn any_single_wrong_byte_of_a_header_is_no_panic() {
    let metadata = [("general.alignment", Value::U32(32)), ("name", Value::Text("n".into()))];
    let bytes = gguf_file::file(&[gguf_file::tensor("a", &[2, 256], "Q6_K")], &metadata);
    let mut refused = 0;
    for at in 0..200.min(bytes.len()) {
        for flip in [0x01, 0x40, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            refused += usize::from(open(damaged).is_err());
        }
    }
    assert!(refused > 200, "{refused}");
    let mut endless = start(3, 0, 1);
    put_text(&mut endless, "list");
    endless.extend(9u32.to_le_bytes());
    for _ in 0..100_000 {
        endless.extend(9u32.to_le_bytes());
        endless.extend(1u64.to_le_bytes());
    }
    assert_eq!(open(endless).unwrap_err().kind(), ErrorKind::LimitExceeded);
}
