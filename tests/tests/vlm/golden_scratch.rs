use luna_core::{checkpoint::Checkpoint, Limits, Call, Precision, vlm::*};
#[test]
fn golden() {
    let root = std::path::Path::new("/work/shared/golden/huggingface");
    let io = Checkpoint::open(root.join("qwen3_vl_io.safetensors"), &Limits::default()).unwrap();
    for t in io.tensors() { println!("{} {:?} {:?}", t.name, t.shape, t.element); }
    let ints = |n: &str| io.tensor(n).map(|t| t.bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()).unwrap();
    let model = VlmModel::open(root.join("qwen3_vl"), &crate::fixtures::RUNTIME).unwrap();
    println!("{:?}", model.info());
    let px = io.tensor("pixel_values").unwrap();
    let g: Vec<usize> = ints("image_grid_thw").into_iter().map(|v| v as usize).collect();
    let patches = Patches::new(g.as_chunks().0.to_vec(), px.shape[1], px.to_f32().unwrap()).unwrap();
    let input = VlmInput { ids: ints("input_ids").into_iter().map(|v| v as u32).collect(), patches };
    for p in [Precision::F32, Precision::Bf16, Precision::F16] {
        let logits = model.logits(&input, p, &Call::new()).unwrap();
        let theirs = io.tensor("logits").unwrap().to_f32().unwrap();
        println!("{p}: relative error {:.3e}", luna_tests::vae::relative_error(&logits, &theirs));
    }
}
