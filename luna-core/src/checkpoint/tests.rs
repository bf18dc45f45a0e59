use super::*;
use std::fs;

/// A safetensors file with the given header text and data.
fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A sound file with f32 tensors of these names and one element each.
fn named(names: &[&str]) -> Vec<u8> {
    let entries: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4))
        .collect();
    raw(&format!("{{{}}}", entries.join(",")), &vec![0; 4 * names.len()])
}

fn open(bytes: Vec<u8>) -> Result<Checkpoint> {
    Checkpoint::from_bytes("test", bytes, &Limits::default())
}

#[test]
fn a_sound_file_gives_its_tensors_and_metadata() {
    let header = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}}"#;
    let checkpoint = open(raw(header, &[1, 2, 3, 4])).unwrap();
    let x = checkpoint.tensor("x").unwrap();
    assert_eq!((x.element, x.shape, x.bytes), (ElementType::F16, &[2, 1][..], &[1, 2, 3, 4][..]));
    assert_eq!(checkpoint.metadata()["a"], "b");
}

#[test]
fn hostile_files_are_refused_by_kind() {
    let t = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let many_sides = format!("[{}]", ["1"; 9].join(","));
    let cases: [(&str, Vec<u8>, ErrorKind); 18] = [
        ("empty", vec![], ErrorKind::InvalidFile),
        ("short", vec![1, 2, 3], ErrorKind::InvalidFile),
        ("huge header", [&(1u64 << 60).to_le_bytes()[..], b"{}"].concat(), ErrorKind::InvalidFile),
        ("html", b"\n<!DOCTYPE html><html>404</html>".to_vec(), ErrorKind::Unsupported),
        ("zip pickle", b"PK\x03\x04archive/data.pkl".to_vec(), ErrorKind::Unsupported),
        ("pickle", b"\x80\x02}q\x00.".to_vec(), ErrorKind::Unsupported),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), ErrorKind::Unsupported),
        ("not json", raw("{nope", &[]), ErrorKind::InvalidFile),
        (
            "overlap",
            raw(&format!("{{{},{}}}", t("a", "F32", "[1]", 0, 4), t("b", "F32", "[1]", 2, 6)), &[0; 6]),
            ErrorKind::InvalidFile,
        ),
        (
            "gap",
            raw(&format!("{{{},{}}}", t("a", "F32", "[1]", 0, 4), t("b", "F32", "[1]", 8, 12)), &[0; 12]),
            ErrorKind::InvalidFile,
        ),
        ("out of range", raw(&format!("{{{}}}", t("a", "F32", "[4]", 0, 16)), &[0; 4]), ErrorKind::InvalidFile),
        ("trailing bytes", raw(&format!("{{{}}}", t("a", "F32", "[1]", 0, 4)), &[0; 9]), ErrorKind::InvalidFile),
        ("size against shape", raw(&format!("{{{}}}", t("a", "F32", "[2]", 0, 4)), &[0; 4]), ErrorKind::InvalidFile),
        (
            "overflow",
            raw(&format!("{{{}}}", t("a", "F32", "[4294967296,4294967296,4]", 0, 4)), &[0; 4]),
            ErrorKind::InvalidFile,
        ),
        (
            "same range twice",
            raw(&format!("{{{},{}}}", t("a", "F32", "[1]", 0, 4), t("a", "F32", "[1]", 0, 4)), &[0; 4]),
            ErrorKind::InvalidFile,
        ),
        ("unknown dtype", raw(&format!("{{{}}}", t("a", "F99", "[1]", 0, 4)), &[0; 4]), ErrorKind::InvalidFile),
        ("complex dtype", raw(&format!("{{{}}}", t("a", "C64", "[1]", 0, 8)), &[0; 8]), ErrorKind::Unsupported),
        (
            "too many sides",
            raw(&format!("{{{}}}", t("a", "F32", &many_sides, 0, 4)), &[0; 4]),
            ErrorKind::LimitExceeded,
        ),
    ];
    for (what, bytes, kind) in cases {
        let error = open(bytes).map(drop).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let whole = named(&["a", "b"]);
    for length in 0..whole.len() {
        assert!(open(whole[..length].to_vec()).is_err(), "{length} bytes of {}", whole.len());
    }
    assert!(open(whole).is_ok());
}

#[test]
fn shards_are_joined_and_checked_against_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("m-1.safetensors", &named(&["a"]));
    write("m-2.safetensors", &named(&["b", "c"]));
    let index = folder.path().join("model.safetensors.index.json");
    let map = |text: &str| write("model.safetensors.index.json", text.as_bytes());
    let open = || Checkpoint::open(&index, &Limits::default());

    map(r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"}}"#);
    assert_eq!(open().unwrap().tensors().len(), 3);
    assert_eq!(Checkpoint::open(folder.path(), &Limits::default()).unwrap().tensors().len(), 3);

    map(r#"{"weight_map":{"a":"m-1.safetensors","d":"m-2.safetensors"}}"#);
    assert!(open().unwrap_err().to_string().contains("no `d`"));
    map(r#"{"weight_map":{"a":"../m-1.safetensors"}}"#);
    assert!(open().unwrap_err().to_string().contains("outside its folder"));
    map(r#"{"weight_map":{"a":"m-3.safetensors"}}"#);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::NotFound);
    map("{}");
    assert_eq!(open().unwrap_err().kind(), ErrorKind::InvalidFile);
}

#[test]
fn folders_without_weights_say_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(folder.path(), &Limits::default()).unwrap_err();
    assert!(error.expectation().unwrap().contains("diffusion_pytorch_model.safetensors"));
    fs::write(folder.path().join("pytorch_model.bin"), b"x").unwrap();
    let error = Checkpoint::open(folder.path(), &Limits::default()).unwrap_err();
    assert!(error.finding().unwrap().contains("pickle"));
}

#[test]
fn taesd_halves_are_found_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("taesd_decoder.safetensors"), named(&["1.weight", "3.conv.0.weight"])).unwrap();
    fs::write(folder.path().join("taesd_encoder.safetensors"), named(&["0.weight", "1.conv.0.weight"])).unwrap();
    for half in ["taesd_decoder.safetensors", "taesd_encoder.safetensors"] {
        let checkpoint = Checkpoint::open(folder.path().join(half), &Limits::default()).unwrap();
        let found = checkpoint.recognise();
        assert_eq!(found.components.len(), 1, "{found:?}");
        assert_eq!((found.components[0].family, found.components[0].tensors), (Family::Taesd, 4));
    }
}

#[test]
fn unknown_files_name_the_nearest_family() {
    let found = open(named(&["decoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight"])).unwrap().recognise();
    let nearest = found.nearest.unwrap();
    assert_eq!((nearest.family, nearest.dialect), (Family::KlVae, Dialect::Ldm));
    assert_eq!(nearest.missing, ["decoder.mid.block_1.conv1.weight"]);
    assert_eq!(open(named(&["nothing"])).unwrap().recognise(), Recognition { unclaimed: 1, ..Recognition::default() });
}

#[test]
fn equal_bytes_have_equal_digests() {
    let digest = |names: &[&str]| open(named(names)).unwrap().digest();
    assert_eq!(digest(&["a"]), digest(&["a"]));
    assert_ne!(digest(&["a"]), digest(&["b"]));
}
