//! Models on a GPU make the logits that they make on the CPU, with every strategy.
#![allow(clippy::unwrap_used, missing_docs, dead_code)] // of what is shared, a part is used

mod fixture;
mod reference;

use std::path::Path;

use ecq_convert::convert::{Options as Conversion, Treatment};
use ecq_convert::rates::rules::{Choice, Rules};
use ecq_format::encode::Profile;
use ecq_gpu::{Engine, Gpu, wgpu};
use ecq_llm::gpu::kernels::{Kernel, Kernels};
use ecq_llm::{Adapter, Cache, Decode, Device, Error, Model, ModelFile, Options, Precision, Sampling};
use fixture::{CONTEXT, Fixture};

/// A device of the adapter that `ECQ_ADAPTER` names, or the fastest one. `None`, and a line that says so, where `ECQ_NO_GPU`
/// says that no adapter is expected; without it a machine without an adapter fails the test.
fn device() -> Option<Gpu> {
    if std::env::var_os("ECQ_NO_GPU").is_some_and(|v| !v.is_empty() && v != "0") {
        println!("not run: ECQ_NO_GPU says that there is no adapter");
        return None;
    }
    let name = std::env::var("ECQ_ADAPTER").ok();
    match Gpu::open(name.as_deref()) {
        Ok(gpu) => Some(gpu),
        Err(error) => panic!("{error} (ECQ_NO_GPU=1 says that none is expected)"),
    }
}

fn adapter() -> Option<Adapter> {
    device().map(|gpu| Adapter::new(&gpu).unwrap())
}

fn on_cpu(file: &Path) -> Model {
    Model::open(file, Options { precision: Precision::F32, ..Options::default() }).unwrap()
}

fn on_gpu(file: &Path, adapter: &Adapter, decode: Decode, memory: Option<u64>) -> Result<Model, Error> {
    let options = Options { device: Device::Gpu, decode, memory, ..Options::default() };
    Model::load_on(ModelFile::open(file)?, options, Some(adapter))
}

fn text(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 97 + i * i * 31) % 257).collect()
}

fn logits(model: &Model, cache: &mut Cache, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    model.logits(tokens, cache, |logits| all.push(logits.to_vec())).unwrap();
    assert_eq!(all.len(), tokens.len());
    all
}

fn compare(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    let mut worst = 0.0f64;
    for (found, expected) in found.iter().zip(expected) {
        let square = |x: f64| x * x;
        let size: f64 = expected.iter().map(|&l| square(l.into())).sum();
        let off: f64 = found.iter().zip(expected).map(|(&f, &e)| square(f64::from(f) - f64::from(e))).sum();
        let off = (off / size).sqrt();
        assert!(off <= 1e-5, "{what}: off by {off:e} of the norm");
        worst = worst.max(off);
    }
    println!("{what}: off by at most {worst:.1e} of the norm");
}

#[test]
fn logits_are_those_of_the_cpu() {
    let Some(adapter) = adapter() else { return };
    let kept = |pattern: &str| Rules::new([(pattern.to_owned(), Choice::Keep)]).unwrap();
    let lossless = || Conversion::new(Treatment::Lossless);
    for (architecture, conversion) in [
        ("LlamaForCausalLM", Conversion { profile: Profile::Gpu, ..lossless() }),
        ("Qwen2ForCausalLM", lossless()),
        (
            "Qwen3ForCausalLM",
            Conversion { rules: kept("*.{0.mlp.up,1.self_attn.v}_proj.weight"), ..lossless() },
        ),
    ] {
        let fixture = Fixture::new(architecture);
        let file = fixture.convert_with(conversion);
        let (cpu, gpu) = (on_cpu(&file), on_gpu(&file, &adapter, Decode::Fused, None).unwrap());
        assert_eq!((cpu.choice().device, gpu.choice().device), (Device::Cpu, Device::Gpu));
        let mut caches = [cpu.cache(CONTEXT).unwrap(), gpu.cache(CONTEXT).unwrap()];
        // more than a batch; then a few, one, and more positions than a workgroup takes at once
        for (part, until) in
            [(0..150, CONTEXT), (150..155, CONTEXT), (155..156, CONTEXT), (156..290, 9), (7..40, 0)]
        {
            let tokens = text(CONTEXT);
            let both = [&cpu, &gpu].into_iter().zip(&mut caches);
            let made: Vec<_> =
                both.map(|(model, cache)| logits(model, cache, &tokens[part.clone()])).collect();
            compare(&made[1], &made[0], &format!("{architecture}, tokens {part:?}"));
            caches.iter_mut().for_each(|cache| cache.truncate(until));
            assert_eq!(caches[0].len(), caches[1].len());
        }
    }
}

#[test]
fn all_strategies_make_the_same_texts() {
    let Some(adapter) = adapter() else { return };
    let conversion = Conversion { profile: Profile::Gpu, ..Conversion::new(Treatment::Lossless) };
    let fixture = Fixture::new("LlamaForCausalLM");
    let file = fixture.convert_with(conversion);
    let (mut first, mut packed) = (None, None);
    for (decode, memory) in [
        (Decode::Fused, None),
        (Decode::Cached, None),
        (Decode::Prefetch, None),
        (Decode::Lru, None),
        (Decode::Lru, Some(1 << 20)),
    ] {
        let model = on_gpu(&file, &adapter, decode, memory).unwrap();
        assert_eq!(model.choice().decode, decode);
        let mut cache = model.cache(40).unwrap();
        let all = logits(&model, &mut cache, &text(20));
        cache.truncate(0);
        let made = model.generate(&text(20), &mut cache, Sampling::default(), &|| false).unwrap();
        let made: Vec<u32> = made.collect::<Result<_, _>>().unwrap();
        println!("{decode:?}: {} bytes, {made:?}", model.resident().unwrap());
        let first = first.get_or_insert((made.clone(), all.clone()));
        assert_eq!(made, first.0, "{decode:?}");
        compare(&all, &first.1, &format!("{decode:?}"));
        let bits = |all: &[Vec<f32>]| all.iter().flatten().map(|l| l.to_bits()).collect::<Vec<_>>();
        if decode != Decode::Fused {
            // decoded by whom and when does not matter
            assert!(bits(&all) == *packed.get_or_insert_with(|| bits(&all)), "{decode:?}");
        }
    }
}

#[test]
fn what_is_measured_fits_its_budget() {
    let Some(adapter) = adapter() else { return };
    let fixture = Fixture::new("LlamaForCausalLM");
    let file =
        fixture.convert_with(Conversion { profile: Profile::Gpu, ..Conversion::new(Treatment::Lossless) });
    let fused = on_gpu(&file, &adapter, Decode::Fused, None).unwrap().resident().unwrap();
    let model = on_gpu(&file, &adapter, Decode::Auto, Some(1 << 20)).unwrap();
    assert!(model.resident().unwrap() < 1 << 20 && fused < 1 << 20);
    let cpu = on_cpu(&file);
    let made = [&cpu, &model].map(|model| logits(model, &mut model.cache(9).unwrap(), &text(1)));
    compare(&made[1], &made[0], "measured");
    // a driver for CPUs is not taken for a GPU unless it is asked for
    let options = Options { device: Device::Auto, ..Options::default() };
    let device =
        Model::load_on(ModelFile::open(&file).unwrap(), options, Some(&adapter)).unwrap().choice().device;
    assert_eq!(device, if adapter.is_cpu() { Device::Cpu } else { Device::Gpu });
}

#[test]
fn small_bindings_are_enough() {
    let Some(mut gpu) = device() else { return };
    let mut limits = gpu.adapter.limits();
    // room for one head of the cache, 16 logits and a part of a plain matrix
    limits.max_storage_buffer_binding_size = 20 << 10;
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    (gpu.device, gpu.queue) = pollster::block_on(gpu.adapter.request_device(&descriptor)).unwrap();
    let fixture = Fixture::new("Qwen2ForCausalLM");
    let rules = Rules::new([("model.embed_tokens.weight".to_owned(), Choice::Keep)]).unwrap();
    let file = fixture.convert_with(Conversion { rules, ..Conversion::new(Treatment::Lossless) });
    let model = on_gpu(&file, &Adapter::new(&gpu).unwrap(), Decode::Fused, None).unwrap();
    let cpu = on_cpu(&file);
    let made = [&cpu, &model].map(|model| logits(model, &mut model.cache(CONTEXT).unwrap(), &text(50)));
    compare(&made[1], &made[0], "small bindings");
}

/// Both orders of rotary embedding, of two tokens with three heads of six numbers.
#[test]
fn pairs_of_numbers_are_turned() {
    let Some(gpu) = device() else { return };
    let engine = Engine::new(&gpu.device, &gpu.queue, ecq_gpu::Options::default()).unwrap();
    let kernels = Kernels::new(&engine).unwrap();
    let buffer = |bytes: &[u8], usage| {
        let usage = usage | wgpu::BufferUsages::COPY_SRC;
        let made = ecq_gpu::upload::buffer(&engine, "a test", bytes.len() as u64, usage).unwrap();
        engine.queue().write_buffer(&made, 0, bytes);
        made
    };
    let storage = wgpu::BufferUsages::STORAGE;
    let x: Vec<f32> = (0..36).map(|i| i as f32 - 18.0).collect();
    let angle = |token: usize, pair: usize| 0.3 + token as f32 + 0.7 * pair as f32;
    let angles: Vec<f32> =
        (0..6).map(|i| angle(i / 3, i % 3)).flat_map(|angle| [angle.cos(), angle.sin()]).collect();
    for (apart, step) in [(1, 2), (3, 1)] {
        let params = buffer(bytemuck::cast_slice(&[3u32, 3, apart, step]), wgpu::BufferUsages::UNIFORM);
        let turns = buffer(bytemuck::cast_slice(&angles), storage);
        let turned = buffer(bytemuck::cast_slice(&x), storage);
        let buffers = [&params, &turns, &turned].map(wgpu::Buffer::as_entire_binding);
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let rotate = kernels.dispatch(Kernel::Rotate, buffers, [1, 2]).unwrap();
        rotate.record(&mut encoder.begin_compute_pass(&Default::default()));
        engine.queue().submit([encoder.finish()]);
        let found = ecq_gpu::engine::read(engine.device(), engine.queue(), &turned, turned.size()).unwrap();
        let mut expected = x.clone();
        for (i, head) in expected.chunks_mut(6).enumerate() {
            for pair in 0..3 {
                let (sin, cos) = angle(i / 3, pair).sin_cos();
                let (a, b) = if step == 2 { (2 * pair, 2 * pair + 1) } else { (pair, pair + 3) };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
        for (found, expected) in found.into_iter().map(f32::from_bits).zip(expected) {
            assert!((found - expected).abs() <= 1e-5, "{found}, {expected}");
        }
    }
}

#[test]
fn failures_are_named() {
    let Some(gpu) = device() else { return };
    let adapter = Adapter::new(&gpu).unwrap();
    let fixture = Fixture::new("LlamaForCausalLM");
    let file = fixture.convert();
    let error = on_gpu(&file, &adapter, Decode::Fused, Some(1000)).err().unwrap();
    assert!(matches!(error, Error::Argument { what: "the memory", .. }), "{error}");
    let [a, b] = [0; 2].map(|_| on_gpu(&file, &adapter, Decode::Fused, None).unwrap());
    let error = a.next(&[1], &mut b.cache(4).unwrap(), &|| false).unwrap_err();
    assert!(matches!(error, Error::Argument { what: "the cache", .. }), "{error}");
    // stopped before anything is done
    let mut cache = a.cache(4).unwrap();
    assert!(a.next(&[1, 2], &mut cache, &|| true).unwrap().is_empty() && cache.is_empty());
    let error = Adapter::open(Some("no adapter has such a name")).err().unwrap();
    assert!(matches!(&error, Error::NoGpu { .. }) && error.to_string().contains("--device cpu"), "{error}");
    gpu.device.destroy();
    let error = a.next(&[1], &mut cache, &|| false).unwrap_err();
    assert!(matches!(&error, Error::Gpu { .. }) && error.to_string().contains("--device cpu"), "{error}");
}
