//! A machine of the lab: a thread that lives in its own network and mount namespace.
//!
//! The thread holds the namespaces and does what it is asked inside them. Child processes and
//! threads started there inherit both. When the thread ends (or this whole process, however it
//! dies) the namespaces go with the last process in them: nothing is bound to a path.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};

use crate::mounts;
use crate::process::{Process, Spec};

type Job = Box<dyn FnOnce() + Send>;

/// One machine. Cheap to clone; the namespaces end when the last clone is dropped.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    dir: PathBuf,
    lab_dir: PathBuf,
    net_path: String,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Node {
    /// Makes the namespaces, with /run on a tmpfs and /etc/wgha, /etc/wireguard and /var/lib/wgha
    /// on directories below `lab_dir/name`.
    ///
    /// # Errors
    /// When namespaces or mounts are refused.
    pub(crate) fn start(lab_dir: &Path, name: &str) -> Result<Self> {
        let dir = lab_dir.join(name);
        mounts::make_dirs(&dir)?;
        let (jobs, queue) = channel::<Job>();
        let (ready, started) = channel();
        let thread_dir = dir.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = ready.send(enter_new_namespaces(&thread_dir));
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
        let tid = started.recv().context("the node's thread died")??;
        let node = Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                dir,
                lab_dir: lab_dir.to_owned(),
                net_path: format!("/proc/{}/task/{tid}/ns/net", std::process::id()),
                jobs: Mutex::new(Some(jobs)),
                thread: Mutex::new(Some(thread)),
            }),
        };
        node.ip_batch("link set lo up\n")?;
        // Lets `ping` open its socket: group 0 may.
        node.sysctl("net/ipv4/ping_group_range", "0 0")?;
        Ok(node)
    }

    /// Its name: `gw1`, `router`, `client1` ...
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its directory outside: `etc-wgha`, `etc-wireguard`, `state`, `log` below it.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The lab's directory.
    pub(crate) fn lab_dir(&self) -> &Path {
        &self.inner.lab_dir
    }

    /// A path for `ip link set ... netns`.
    pub fn net_path(&self) -> &str {
        &self.inner.net_path
    }

    /// Runs `f` in this node's namespaces and returns what it returns. Calls on one node run one
    /// after the other: `f` must not call `run` of the same node, nor block for long.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || {
            let _ = done.send(catch_unwind(AssertUnwindSafe(f)));
        });
        let jobs = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(jobs) = jobs {
            let _ = jobs.send(job);
        }
        match result.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("the thread of node {} is gone", self.name()),
        }
    }

    /// Starts a thread that lives in this node's namespaces.
    pub fn thread<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.run(move || thread::spawn(f))
    }

    /// Runs a program to its end in this node and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the message holds its standard error.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        let argv: Vec<String> = argv.iter().map(|&a| a.to_owned()).collect();
        self.run(move || {
            let (program, args) = argv.split_first().ok_or_else(|| anyhow!("no program given"))?;
            let mut command = Command::new(program);
            crate::sys::die_with_parent(command.args(args));
            let out = command.output().with_context(|| format!("running {program}"))?;
            if !out.status.success() {
                bail!("{}: {}", argv.join(" "), String::from_utf8_lossy(&out.stderr).trim());
            }
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        })
    }

    /// Runs a line of shell in this node.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn sh(&self, line: &str) -> Result<String> {
        self.exec(&["sh", "-c", line])
    }

    /// Feeds lines to `ip -batch`.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.feed("ip-batch", lines, &["ip", "-batch"])
    }

    /// Applies nftables rules in one transaction.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.feed("nft-rules", rules, &["nft", "-f"])
    }

    /// Runs a program with one more argument: a file that holds `text`.
    pub(crate) fn feed(&self, file: &str, text: &str, program: &[&str]) -> Result<()> {
        let path = self.dir().join(file).display().to_string();
        std::fs::write(&path, text)?;
        let argv: Vec<&str> = program.iter().copied().chain([path.as_str()]).collect();
        self.exec(&argv).with_context(|| format!("in {}: {text}", self.name()))?;
        Ok(())
    }

    /// Starts a program that keeps running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, spec: Spec) -> Result<Process> {
        Process::start(self, spec)
    }

    /// Sets a sysctl, named as a path below /proc/sys.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{name}"), value.to_owned());
        self.run(move || std::fs::write(&path, value).with_context(|| path.clone()))
    }

    /// One echo through ICMP, by the `ping` of this node's namespaces; false when no answer came within a second.
    pub fn ping(&self, address: std::net::IpAddr) -> bool {
        crate::ping::ping(self, address, std::time::Duration::from_secs(1)).is_ok()
    }
}

fn enter_new_namespaces(dir: &Path) -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("new network and mount namespace")?;
    mounts::set_up(dir)?;
    Ok(nix::unistd::gettid().as_raw())
}
