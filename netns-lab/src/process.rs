//! Daemons in a node: started in their own process group, logged with time stamps, killed on drop.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::node::Node;
use crate::sys::realtime_ns;

/// Marks every process of a lab, so that `netns-lab clean` finds the ones a killed lab left behind.
pub(crate) const LAB_VARIABLE: &str = "NETNS_LAB_DIR";

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name of the log file and of the source in time lines.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
}

impl Spec {
    /// A program with its arguments; the log is named after the program.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
        let first = argv.first().map_or("process", String::as_str);
        let name = Path::new(first)
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Self { name, argv, env: Vec::new() }
    }

    /// Another name for log and time line.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// The longest wait for what an ended program wrote last.
const DRAIN: Duration = Duration::from_secs(5);

/// The longest wait for what was killed.
const DEATH: Duration = Duration::from_secs(10);

/// A running (or ended) program and its log.
pub struct Process {
    node_name: String,
    name: String,
    child: Child,
    log: PathBuf,
    log_start: usize,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(node: &Node, spec: Spec) -> Result<Self> {
        let log = node.dir().join("log").join(format!("{}.log", spec.name));
        let file = File::options().create(true).append(true).open(&log)?;
        let log_start = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let lab_dir = node.lab_dir().to_owned();
        let name = spec.name.clone();
        // Started by the node's own thread: it lives as long as the node, and the kernel kills the child with it.
        let mut child = node.run(move || {
            let (program, args) = spec.argv.split_first().context("no program given")?;
            let mut command = Command::new(program);
            command.args(args).envs(spec.env).env(LAB_VARIABLE, lab_dir);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0);
            crate::sys::die_with_parent(&mut command);
            command.spawn().with_context(|| format!("starting {program}"))
        })?;
        let file = Arc::new(Mutex::new(file));
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.push(copy_lines(out, Arc::clone(&file)));
        }
        if let Some(err) = child.stderr.take() {
            readers.push(copy_lines(err, file));
        }
        Ok(Self { node_name: node.name().to_owned(), name, child, log, log_start, readers })
    }

    /// The node that it runs in.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The worker of a `wgha run`, whose guard is the program that was started.
    ///
    /// # Errors
    /// When there is none (now).
    pub fn worker(&self) -> Result<Pid> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let name = |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let worker = children.split_whitespace().find(|pid| name(pid).is_ok_and(|n| n == "wgha\n"));
        let worker = worker.with_context(|| format!("{} has no worker", self.node_name))?;
        Ok(Pid::from_raw(worker.parse()?))
    }

    /// Sends a signal to the program that was started, and to nothing that it started.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal_alone(&self, signal: Signal) -> Result<()> {
        kill(self.group(), signal)
            .with_context(|| format!("{signal} to {} on {}", self.name, self.node_name))
    }

    /// Its log; every line begins with CLOCK_REALTIME in seconds.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What this process wrote so far; the file may begin with those before it.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// Waits until the log holds `text`.
    ///
    /// # Errors
    /// When it does not in time, or the program ends without it; the message holds the log's end.
    pub fn wait_log(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            if self.log().contains(text) {
                return Ok(());
            }
            let ended = self.child.try_wait()?.is_some();
            if ended || Instant::now() > end {
                if ended {
                    self.drain();
                }
                let log = self.log();
                if log.contains(text) {
                    return Ok(());
                }
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                bail!(
                    "{} on {}: no {text:?} in its log:\n{}",
                    self.name,
                    self.node_name,
                    tail.join("\n")
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal to the program and everything in its process group.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        killpg(self.group(), signal)
            .with_context(|| format!("{signal} to {} on {}", self.name, self.node_name))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; the log then holds all that it said.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                self.drain();
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("{} on {} still runs after {timeout:?}", self.name, self.node_name)
    }

    /// SIGKILL to the program and everything in its process group, and waits for all of them. Returns the
    /// program's status: usually "killed by signal 9".
    ///
    /// # Errors
    /// When waiting fails.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let _ = killpg(self.group(), Signal::SIGKILL);
        let status = self.child.wait()?;
        // A child of its own may take longer: the kernel takes its devices down first.
        let end = Instant::now() + DEATH;
        while lives(self.group()) {
            if Instant::now() > end {
                bail!("{} on {}: killed, and something of it lives", self.name, self.node_name);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(status)
    }

    /// SIGTERM, and SIGKILL when it has not ended in time. True when SIGTERM was enough.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn stop(&mut self, timeout: Duration) -> Result<bool> {
        let _ = self.signal(Signal::SIGTERM);
        match self.wait(timeout) {
            Ok(status) => Ok(status.signal() != Some(Signal::SIGKILL as i32)),
            Err(_) => self.kill().map(|_| false),
        }
    }

    /// Waits until the last lines of a program that ended stand in the log. A grandchild that left the
    /// group may hold the pipes for ever, so not for long.
    fn drain(&self) {
        let end = Instant::now() + DRAIN;
        while Instant::now() < end && self.readers.iter().any(|r| !r.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.child.wait();
        self.drain();
    }
}

/// Whether a process of this group runs. A zombie does not, once its last thread has let go of everything.
fn lives(group: Pid) -> bool {
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = ids.filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok());
    let mut all = stats.filter_map(|stat| {
        // The name may hold spaces; after it come state, parent and group (proc(5)).
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let (state, of, threads) = (*fields.first()?, *fields.get(2)?, *fields.get(17)?);
        let dead = state == "X" || state == "Z" && matches!(threads, "0" | "1");
        Some((of.parse::<i32>().ok()?, dead))
    });
    all.any(|(of, dead)| of == group.as_raw() && !dead)
}

fn copy_lines(from: impl Read + Send + 'static, to: Arc<Mutex<File>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!((&mut from).take(65_536).read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let now = realtime_ns();
            let text = String::from_utf8_lossy(&line);
            let stamped = format!(
                "{}.{:06} {}\n",
                now / 1_000_000_000,
                now % 1_000_000_000 / 1000,
                text.trim_end()
            );
            let _ = to.lock().unwrap_or_else(PoisonError::into_inner).write_all(stamped.as_bytes());
            line.clear();
        }
    })
}
