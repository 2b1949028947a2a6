//! The engine: what a device can do, and the pipelines that were made for it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use wgpu::{BufferUsages, ComputePipeline, Device, ErrorFilter, Features, Limits, Queue};

use crate::error::{Error, Result};
use crate::variant::{Code, Form, Input, Kernel, Lanes, Tuning, Variant};
use crate::{plan, shader};

/// What an engine shall do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Use kernels without subgroups even where there are some.
    pub no_subgroups: bool,
    /// Run shaders with bounds checks, too, although every tensor is validated when it is uploaded.
    pub checked: bool,
    /// What a measurement chose for this device.
    pub tuning: Tuning,
}

/// Makes products on a device. A clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    device: Device,
    queue: Queue,
    lanes: Lanes,
    limits: Limits,
    planned: plan::Limits,
    checked: bool,
    tuning: Tuning,
    pipelines: Arc<Mutex<HashMap<Variant, ComputePipeline>>>,
    /// Tells whether the device is still there; `None` once it is gone.
    alive: Arc<Mutex<Option<wgpu::Buffer>>>,
}

impl Engine {
    /// Finds out what the device can do; runs a small kernel for that and waits for it.
    ///
    /// Errors: [`Error::Limit`] if a workgroup is allowed less than WebGPU promises, [`Error::Lost`], [`Error::Shader`],
    /// [`Error::OutOfMemory`].
    pub fn new(device: &Device, queue: &Queue, options: Options) -> Result<Self> {
        let limits = device.limits();
        let planned = plan::Limits::from(&limits);
        least(&limits)?;
        check(&planned, Lanes::Barriers)?;
        let subgroups = device.features().contains(Features::SUBGROUP) && !options.no_subgroups;
        let size = match subgroups {
            true => caught(device, "looking for subgroups", || probe(device, queue))?,
            false => None,
        };
        let lanes = match size {
            Some(size) if check(&planned, Lanes::Subgroups(size)).is_ok() => Lanes::Subgroups(size),
            _ => Lanes::Barriers,
        };
        let (device, queue) = (device.clone(), queue.clone());
        let alive = caught(&device, "an engine", || {
            Ok(device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("ecq alive"),
                size: 8,
                usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }))
        })?;
        Ok(Self {
            device,
            queue,
            lanes,
            limits,
            planned,
            checked: options.checked,
            tuning: options.tuning,
            pipelines: Arc::default(),
            alive: Arc::new(Mutex::new(Some(alive))),
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// How kernels lie on it.
    pub fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// The same engine, device and pipelines, with other choices: what is measured beside it.
    pub fn tuned(&self, tuning: Tuning) -> Self {
        Self { tuning, ..self.clone() }
    }

    /// What was chosen for it.
    pub(crate) fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits until the queue has done all that was submitted. Error: [`Error::Lost`].
    pub fn wait(&self) -> Result<()> {
        let done = self.device.poll(wgpu::PollType::wait_indefinitely());
        done.map(|_| ()).map_err(|e| Error::Lost(e.to_string()))
    }

    /// Does something whose refusal by wgpu is an error of ours. wgpu takes no notice of work for a device that is gone, so
    /// that is looked for, too. Within another guard of this engine, on the same thread, that one looks: a model's pass has
    /// hundreds of products, and to look takes as long as to record one.
    ///
    /// Errors: what `run` says, [`Error::Lost`], [`Error::OutOfMemory`], [`Error::Wgpu`].
    pub fn guard<T>(&self, what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(_guarded) = Guarded::begin(&self.alive) else { return run() };
        let done = caught(&self.device, what, run);
        if !self.is_alive() {
            return Err(Error::Lost(format!("it was gone during {what}")));
        }
        done
    }

    /// Whether the device is still there. A buffer that is mapped, and unmapped before anybody reads it, costs no memory, and
    /// that it cannot be mapped is said at once.
    fn is_alive(&self) -> bool {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(buffer) = alive.as_ref() else { return false };
        let lost = Arc::new(AtomicBool::new(false));
        let says = lost.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            says.store(result.is_err(), Ordering::Relaxed);
        });
        let is_alive = !lost.load(Ordering::Relaxed);
        if is_alive {
            buffer.unmap();
        } else {
            *alive = None;
        }
        is_alive
    }

    /// Error: [`Error::Argument`] for vectors of a type that the device's shaders do not know.
    pub(crate) fn knows(&self, what: &str, input: Input) -> Result<()> {
        if input == Input::F32 || self.device.features().contains(Features::SHADER_F16) {
            return Ok(());
        }
        Err(Error::Argument {
            what: format!("vectors of a product with {what}"),
            expected: "f32, as the device was made without the feature SHADER_F16".into(),
            got: "f16".into(),
        })
    }

    /// Those that plans look at.
    pub(crate) fn planned(&self) -> &plan::Limits {
        &self.planned
    }

    /// Compiles what there is not yet, on all threads of the pool. Error: [`Error::Shader`].
    pub(crate) fn compile(&self, variants: impl IntoIterator<Item = Variant>) -> Result<()> {
        let new: HashSet<Variant> = {
            let known = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
            variants.into_iter().filter(|variant| !known.contains_key(variant)).collect()
        };
        new.into_par_iter().try_for_each(|variant| self.pipeline(&variant).map(drop))
    }

    /// The pipeline of a variant, made on first use. Error: [`Error::Shader`].
    pub(crate) fn pipeline(&self, variant: &Variant) -> Result<ComputePipeline> {
        let lock = || self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = lock().get(variant) {
            return Ok(pipeline.clone());
        }
        let pipeline = shader::pipeline(
            &self.device,
            variant.kernel.name(),
            &variant.source(),
            &variant.bindings(),
            self.checked,
        )?;
        lock().insert(*variant, pipeline.clone());
        Ok(pipeline)
    }
}

/// Does something, and what wgpu refused of it: nobody else hears of that, and an error that nobody hears of is a panic.
pub(crate) fn refused<T>(device: &Device, run: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
    let scopes = [ErrorFilter::Validation, ErrorFilter::Internal, ErrorFilter::OutOfMemory]
        .map(|filter| device.push_error_scope(filter));
    let done = run();
    // the last one first: without memory, what is not valid is a consequence
    let refused = scopes.into_iter().rev().fold(None, |all, scope| all.or(pollster::block_on(scope.pop())));
    (done, refused)
}

/// Does something whose refusal is an error of ours. Errors: what `run` says, [`Error::OutOfMemory`], [`Error::Wgpu`].
fn caught<T>(device: &Device, what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let (done, refused) = refused(device, run);
    let what = what.into();
    match (refused, done) {
        (None, done) => done,
        (_, Err(error @ Error::OutOfMemory { .. })) => Err(error),
        // what could not be made cannot be mapped, either: other errors are consequences
        (Some(wgpu::Error::OutOfMemory { .. }), _) => Err(Error::OutOfMemory { what, bytes: None }),
        (Some(_), Err(error)) => Err(error),
        (Some(why), Ok(_)) => Err(Error::Wgpu { what, why: why.to_string() }),
    }
}

thread_local! {
    /// Which engines are guarded on this thread, by the addresses of their buffers.
    static GUARDED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// While it is there, an engine is guarded on this thread.
struct Guarded;

impl Guarded {
    /// `None` if the engine is guarded already.
    fn begin(alive: &Arc<Mutex<Option<wgpu::Buffer>>>) -> Option<Self> {
        let own = Arc::as_ptr(alive) as usize;
        GUARDED.with_borrow_mut(|all| {
            let new = !all.contains(&own);
            new.then(|| all.push(own)).map(|()| Self)
        })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        GUARDED.with_borrow_mut(|all| all.pop());
    }
}

/// Whether the device has what every kernel needs, the one among them that looks for subgroups. Error: [`Error::Limit`].
fn least(limits: &Limits) -> Result<()> {
    let all = [
        (
            "workgroups in a dimension",
            limits.max_compute_workgroups_per_dimension.into(),
            1,
            "max_compute_workgroups_per_dimension",
        ),
        ("groups of bindings", limits.max_bind_groups.into(), 1, "max_bind_groups"),
        (
            "uniform buffers",
            limits.max_uniform_buffers_per_shader_stage.into(),
            1,
            "max_uniform_buffers_per_shader_stage",
        ),
        (
            "bytes in a uniform buffer",
            limits.max_uniform_buffer_binding_size,
            64,
            "max_uniform_buffer_binding_size",
        ),
        (
            "bytes in a binding",
            limits.max_storage_buffer_binding_size,
            1 << 12,
            "max_storage_buffer_binding_size",
        ),
        ("bytes in a buffer", limits.max_buffer_size, 1 << 12, "max_buffer_size"),
    ];
    match all.into_iter().find(|(_, limit, needs, _)| limit < needs) {
        Some((unit, limit, needs, name)) => {
            Err(Error::Limit { what: "an engine".into(), unit, needs, limit, name })
        }
        None => Ok(()),
    }
}

/// Whether the kernels that need most fit the device. Error: [`Error::Limit`].
fn check(limits: &plan::Limits, lanes: Lanes) -> Result<()> {
    let form = Form { columns: true, escapes: true, ..Form::PLAIN };
    let (vectors, input) = (16, Input::F32);
    let (fused, plain) = (Kernel::Fused { vectors, input }, Kernel::Plain { vectors, input });
    let nibble = Form { code: Code::Nibble { lanes: 1024 }, ..form };
    let all = [(fused, form), (plain, form), (Kernel::Prompt { input }, form), (fused, nibble)];
    all.into_iter().try_for_each(|(kernel, form)| {
        plan::Needs::of(&Variant::new(kernel, form, lanes)).check(kernel.name(), limits)
    })
}

/// The size of subgroups, found by running a kernel: what adapters say is a range. `None` if it is none that kernels are
/// made for, or differs within a workgroup, or if invocations are not numbered as expected.
fn probe(device: &Device, queue: &Queue) -> Result<Option<u32>> {
    const INVOCATIONS: usize = 256;
    if device.limits().max_compute_invocations_per_workgroup < INVOCATIONS as u32 {
        return Ok(None);
    }
    let bindings = [shader::Binding::Write(0)];
    let source = include_str!("kernels/probe.wgsl");
    let pipeline = shader::pipeline(device, "probe", source, &bindings, true)?;
    let size = 8 * INVOCATIONS as u64;
    let found = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("ecq probe"),
        size,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("ecq probe"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: found.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    queue.submit([encoder.finish()]);
    let words = read(device, queue, &found, size)?;
    let size = words[0];
    let regular = words.chunks_exact(2).enumerate().all(|(i, word)| word == [size, i as u32]);
    Ok((regular && size.is_power_of_two() && (4..=128).contains(&size)).then_some(size))
}

/// Copies words from a buffer and waits for them. Errors: [`Error::Lost`], [`Error::OutOfMemory`], [`Error::Wgpu`].
pub fn read(device: &Device, queue: &Queue, buffer: &wgpu::Buffer, size: u64) -> Result<Vec<u32>> {
    caught(device, "reading a buffer", || copy(device, queue, buffer, size))
}

fn copy(device: &Device, queue: &Queue, buffer: &wgpu::Buffer, size: u64) -> Result<Vec<u32>> {
    let fail = |why: String| Error::Wgpu { what: "reading a buffer".into(), why };
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("ecq read"),
        size,
        usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
    queue.submit([encoder.finish()]);
    let (sender, receiver) = std::sync::mpsc::channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| {
        let _ = sender.send(result); // nobody waits after an error of poll
    });
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| Error::Lost(e.to_string()))?;
    // another thread that polls may be the one that reports, and a little later
    let mapped = receiver.recv().map_err(|e| fail(e.to_string()))?;
    mapped.map_err(|e| Error::Lost(e.to_string()))?;
    let view = staging.get_mapped_range(..).map_err(|e| fail(e.to_string()))?;
    Ok(bytemuck::pod_collect_to_vec(&view))
}
