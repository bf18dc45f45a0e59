//! Prints what the kernels reach on the layer shapes of the models, against what this machine can do at most.
//!
//! `cargo run --release -p luna-kernels --example kernel_bench -- [filter] [--threads 1,2] [--runs 5]`
//!
//! Rates count the operations of the direct algorithm, so a Winograd convolution may exceed the peak.

use half::bf16;
use luna_kernels::*;
use std::time::{Duration, Instant};

struct Options {
    filter: String,
    threads: Vec<usize>,
    runs: usize,
    isa: Isa,
}

fn options() -> Options {
    let mut options = Options { filter: String::new(), threads: vec![1, 2], runs: 5, isa: Isa::detect() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => {
                options.threads =
                    args.next().expect("a list").split(',').map(|n| n.parse().expect("a number")).collect()
            }
            "--runs" => options.runs = args.next().expect("a number").parse().expect("a number"),
            "--isa" => {
                let name = args.next().expect("a name");
                options.isa = Isa::available()
                    .into_iter()
                    .find(|isa| isa.name() == name)
                    .expect("an instruction set of this machine");
            }
            _ => options.filter = arg,
        }
    }
    options
}

struct Bench<'a> {
    options: &'a Options,
    pools: Vec<rayon::ThreadPool>,
    peaks: Vec<Peak>,
}

fn main() {
    let options = options();
    let pools: Vec<_> = options
        .threads
        .iter()
        .map(|&n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads start"))
        .collect();
    let workspace = Workspace::new();
    let cx = Context::new(&workspace).with_isa(options.isa);
    let peaks: Vec<Peak> = pools.iter().map(|pool| pool.install(|| peak(Duration::from_millis(200), &cx))).collect();
    for peak in &peaks {
        println!(
            "{} thread(s), {}: {:.0} GFLOP/s f32, {:.1} GB/s read",
            peak.threads,
            options.isa.name(),
            peak.gflops,
            peak.read_gbytes
        );
    }
    workspace.trim();
    let bench = Bench { options: &options, pools, peaks };
    vae(&bench, &cx);
    taesd(&bench, &cx);
    unet(&bench, &cx);
    text(&bench, &cx);
    attentions(&bench, &cx);
    memory_bound(&bench, &cx);
}

impl Bench<'_> {
    fn wanted(&self, name: &str) -> bool {
        name.contains(&self.options.filter)
    }

    /// Times `work` with each number of threads and prints its rate; returns the best seconds of each.
    ///
    /// The share of the peak counts processor time, so that it holds on a machine that others use as well.
    fn time(&self, name: &str, flops: f64, mut work: impl FnMut() + Send) -> Vec<f64> {
        let mut line = format!("{name:<44} {:>7.2} GFLOP", flops / 1e9);
        let mut times = Vec::new();
        for (pool, peak) in self.pools.iter().zip(&self.peaks) {
            let (mut wall, mut cpu) = (f64::INFINITY, f64::INFINITY);
            pool.install(&mut work);
            for _ in 0..self.options.runs {
                let (start, busy) = (Instant::now(), processor_seconds());
                pool.install(&mut work);
                wall = wall.min(start.elapsed().as_secs_f64());
                cpu = cpu.min(processor_seconds() - busy);
            }
            let share = 100.0 * flops / cpu / 1e9 / (peak.gflops / peak.threads as f64);
            line += &format!(
                " | {}t {:>7.2} ms wall {:>7.2} cpu {:>5.0} GF/s {:>4.0}%",
                peak.threads,
                wall * 1e3,
                cpu * 1e3,
                flops / wall / 1e9,
                share
            );
            times.push(cpu / peak.threads as f64);
        }
        println!("{line}");
        times
    }
}

/// Processor time of this process, all threads.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn noise(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}

/// A layer: channels in and out, input size, what else, and how often it occurs in the model.
struct Layer {
    cin: usize,
    cout: usize,
    size: usize,
    kernel: usize,
    stride: usize,
    upsample: bool,
    norm: bool,
    times: usize,
}

fn layer(cin: usize, cout: usize, size: usize, times: usize) -> Layer {
    Layer { cin, cout, size, kernel: 3, stride: 1, upsample: false, norm: true, times }
}

fn vae(bench: &Bench<'_>, cx: &Context<'_>) {
    let layers = [
        Layer { norm: false, ..layer(4, 512, 64, 1) },
        layer(512, 512, 64, 10),
        Layer { upsample: true, norm: false, ..layer(512, 512, 64, 1) },
        layer(512, 512, 128, 6),
        Layer { upsample: true, norm: false, ..layer(512, 512, 128, 1) },
        layer(512, 256, 256, 1),
        Layer { kernel: 1, norm: false, ..layer(512, 256, 256, 1) },
        layer(256, 256, 256, 5),
        Layer { upsample: true, norm: false, ..layer(256, 256, 256, 1) },
        layer(256, 128, 512, 1),
        Layer { kernel: 1, norm: false, ..layer(256, 128, 512, 1) },
        layer(128, 128, 512, 5),
        layer(128, 3, 512, 1),
    ];
    convolutions(bench, cx, "vae decode", &layers);
    let layers = [
        Layer { norm: false, ..layer(3, 128, 512, 1) },
        Layer { stride: 2, norm: false, ..layer(128, 128, 512, 1) },
        Layer { stride: 2, norm: false, ..layer(256, 256, 256, 1) },
        Layer { stride: 2, norm: false, ..layer(512, 512, 128, 1) },
        layer(512, 8, 64, 1),
    ];
    convolutions(bench, cx, "vae encode", &layers);
}

fn taesd(bench: &Bench<'_>, cx: &Context<'_>) {
    let plain = |cin, cout, size, times| Layer { norm: false, ..layer(cin, cout, size, times) };
    let layers = [
        plain(4, 64, 64, 1),
        plain(64, 64, 64, 9),
        Layer { upsample: true, ..plain(64, 64, 64, 1) },
        plain(64, 64, 128, 9),
        Layer { upsample: true, ..plain(64, 64, 128, 1) },
        plain(64, 64, 256, 9),
        Layer { upsample: true, ..plain(64, 64, 256, 1) },
        plain(64, 64, 512, 3),
        plain(64, 3, 512, 1),
    ];
    convolutions(bench, cx, "taesd decode", &layers);
}

fn unet(bench: &Bench<'_>, cx: &Context<'_>) {
    let layers = [
        layer(320, 320, 64, 1),
        layer(640, 640, 32, 1),
        layer(1280, 1280, 16, 1),
        layer(2560, 1280, 16, 1),
        layer(1280, 1280, 8, 1),
        Layer { stride: 2, norm: false, ..layer(320, 320, 64, 1) },
    ];
    convolutions(bench, cx, "unet", &layers);
    for (m, n, k) in [(8192, 2560, 320), (8192, 320, 1280), (2048, 640, 640), (512, 10240, 1280)] {
        linear_layer::<f32>(bench, cx, &format!("unet linear {m}x{n}x{k} f32"), (m, n, k), WeightType::F32);
        linear_layer::<bf16>(bench, cx, &format!("unet linear {m}x{n}x{k} bf16"), (m, n, k), WeightType::BF16);
    }
}

fn convolutions(bench: &Bench<'_>, cx: &Context<'_>, model: &str, layers: &[Layer]) {
    let mut totals = vec![0.0; bench.pools.len()];
    let mut whole = true;
    for l in layers {
        let after = if l.upsample { 2 * l.size } else { l.size };
        let name = format!(
            "{model} conv {}x{} {}->{} @{}{}{}",
            l.kernel,
            l.kernel,
            l.cin,
            l.cout,
            l.size,
            if l.stride > 1 { " /2" } else { "" },
            if l.upsample { " up" } else { "" }
        );
        if !bench.wanted(&name) {
            whole = false;
            continue;
        }
        let padding = if l.stride == 2 { [0, 1, 0, 1] } else { [l.kernel / 2; 4] };
        let shape = ConvShape { cin: l.cin, cout: l.cout, kh: l.kernel, kw: l.kernel, stride: l.stride, padding };
        let packed = PackedConv::from_f32(&noise(l.cin * l.cout * l.kernel * l.kernel), shape);
        let (x, bias) = (noise(l.size * l.size * l.cin), noise(l.cout));
        let affine = ChannelAffine { scale: vec![1.1; l.cin], shift: vec![0.1; l.cin] };
        let (ho, wo) = shape.output(after, after);
        // As the models' activations lie.
        let mut out = cx.workspace().take::<f32>(ho * wo * l.cout);
        want_large_pages(&mut out);
        let mut xa = cx.workspace().take::<f32>(x.len());
        want_large_pages(&mut xa);
        xa.copy_from_slice(&x);
        let x = xa;
        let activation = if l.norm { Activation::Silu } else { Activation::None };
        let input = ConvInput {
            norm: l.norm.then_some(&affine),
            activation,
            upsample: l.upsample,
            ..ConvInput::new(&x, 1, l.size, l.size)
        };
        let e = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        let flops = 2.0 * (ho * wo * l.cin * l.cout * l.kernel * l.kernel) as f64;
        let times = bench.time(&name, flops, || conv2d(&input, &packed, &mut out, &e, cx));
        totals.iter_mut().zip(times).for_each(|(total, time)| *total += time * l.times as f64);
    }
    if whole {
        let totals: Vec<String> = totals.iter().map(|t| format!("{:.3} s", t)).collect();
        println!("{model}: all convolutions, each as often as it occurs: {}", totals.join(", "));
    }
}

fn text(bench: &Bench<'_>, cx: &Context<'_>) {
    for (m, n, k) in
        [(77, 1280, 1280), (77, 5120, 1280), (77, 1280, 5120), (154, 5120, 1280), (1, 5120, 1280), (1, 1280, 5120)]
    {
        linear_layer::<f32>(bench, cx, &format!("text linear {m}x{n}x{k} f32"), (m, n, k), WeightType::F32);
        linear_layer::<f32>(
            bench,
            cx,
            &format!("text linear {m}x{n}x{k} f32 weights bf16"),
            (m, n, k),
            WeightType::BF16,
        );
        linear_layer::<f32>(
            bench,
            cx,
            &format!("text linear {m}x{n}x{k} f32 weights fp8"),
            (m, n, k),
            WeightType::F8E4M3,
        );
        linear_layer::<bf16>(bench, cx, &format!("text linear {m}x{n}x{k} bf16"), (m, n, k), WeightType::BF16);
    }
    linear_layer::<f32>(bench, cx, "square linear 2048x2048x2048 f32", (2048, 2048, 2048), WeightType::F32);
}

fn linear_layer<T: Scalar>(
    bench: &Bench<'_>,
    cx: &Context<'_>,
    name: &str,
    (m, n, k): (usize, usize, usize),
    dtype: WeightType,
) {
    if !bench.wanted(name) {
        return;
    }
    let weights = noise(n * k);
    let bytes: Vec<u8> = match dtype {
        WeightType::F32 => weights.iter().flat_map(|v| v.to_le_bytes()).collect(),
        WeightType::BF16 => weights.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => weights.iter().map(|v| (v * 100.0) as i8 as u8 & 0xbf).collect(),
    };
    // Several copies, more than the caches hold, as layer follows layer in a model.
    let copies = ((80 << 20) / bytes.len()).clamp(1, 12);
    let packed: Vec<PackedMatrix> =
        (0..copies).map(|_| PackedMatrix::pack(WeightView { dtype, bytes: &bytes }, n, k)).collect();
    let a: Vec<T> = noise(m * k).into_iter().map(T::from_f32).collect();
    let mut out = vec![T::default(); m * n];
    let mut next = 0;
    let times = bench.time(name, 2.0 * (m * n * k) as f64, || {
        next += 1;
        linear(&a, m, &packed[next % copies], &mut out, &Epilogue::default(), cx);
    });
    if m == 1 {
        let rates: Vec<String> = times.iter().map(|t| format!("{:.1} GB/s", bytes.len() as f64 / t / 1e9)).collect();
        println!("{:>60} weights read at {}", "", rates.join(", "));
    }
}

fn attentions(bench: &Bench<'_>, cx: &Context<'_>) {
    for (heads, tokens, kv, dim) in [
        (1, 4096, 4096, 512),
        (1, 16384, 16384, 512),
        (8, 4096, 4096, 40),
        (10, 4096, 4096, 64),
        (20, 1024, 1024, 64),
        (8, 4096, 77, 40),
    ] {
        let name = format!("attention {heads} x {tokens} x {kv} x {dim}");
        if !bench.wanted(&name) {
            continue;
        }
        let (q, keys) = (noise(tokens * heads * dim), noise(kv * heads * dim));
        let mut out = vec![0.0f32; tokens * heads * dim];
        let shape = AttentionShape { b: 1, heads, kv_heads: heads, tokens_q: tokens, tokens_kv: kv, dim };
        let k = Tokens::contiguous(&keys, kv, heads * dim);
        let q = Tokens::contiguous(&q, tokens, heads * dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let x = AttentionInput { q, k, v: k, shape, scale, mask: AttentionMask::None, mode: AttentionMode::Auto };
        bench.time(&name, 4.0 * (heads * tokens * kv * dim) as f64, || attention(&x, &mut out, cx));
    }
}

fn memory_bound(bench: &Bench<'_>, cx: &Context<'_>) {
    let (c, hw) = (128, 512 * 512);
    if !bench.wanted("norm 512x512x128") {
        return;
    }
    let x = noise(hw * c);
    let mut out = vec![0.0f32; hw * c];
    let (gamma, beta) = (vec![1.0; c], vec![0.0; c]);
    let norm = GroupNorm { groups: 32, eps: 1e-6, gamma: &gamma, beta: &beta };
    let times = bench.time("norm 512x512x128 statistics", 2.0 * x.len() as f64, || {
        group_norm_affine(&x, 1, hw, &norm, cx);
    });
    println!("{:>60} read at {:.1} GB/s", "", 4.0 * x.len() as f64 / times[times.len() - 1] / 1e9);
    let affine = group_norm_affine(&x, 1, hw, &norm, cx);
    bench.time("norm 512x512x128 applied with silu", 2.0 * x.len() as f64, || {
        apply_affine(&x, &mut out, 1, &affine, Activation::Silu, cx)
    });
}
