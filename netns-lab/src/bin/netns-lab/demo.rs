//! The demonstration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_lab::{
    Cluster, Echo, Event, Lab, Node, Outage, Picture, Prober, Timeline, Watch, WgKind, WgPeer,
    realtime_ns, topology,
};

/// A client without instant re-handshake waits 15 s, and 5 s more for each lost try.
const PATIENCE: Duration = Duration::from_secs(60);
/// Probes before the fault.
const QUIET: Duration = Duration::from_secs(3);
/// After an outage of so much the daemons' logs are shown: no takeover takes this long, but a client that helps itself does.
const STRANGE: Duration = Duration::from_secs(3);
/// The tunnel must be steady for this long before the fault is over.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pair: super::Pair,
    /// Where the pictures go.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// The client's WireGuard: kernel, wireguard-go or embedded; unless given, the first that is there.
    #[arg(long)]
    client: Option<WgKind>,
}

/// Everything that runs.
struct Stage {
    lab: Lab,
    cluster: Cluster,
    watch: Watch,
    out: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let program = options.pair.program()?;
    let lab = Lab::builder().cluster(options.pair.cluster()).build()?;
    println!("{}", lab.drawing());
    let watch = Watch::start(&lab)?;
    let cluster = Cluster::start(&lab, &program)?;
    let stage = Stage { watch, cluster, out: options.out.clone(), lab };
    let first =
        stage.cluster.wait_master(Duration::from_secs(20)).map_err(|e| stage.with_logs(e))?;
    stage.cluster.wait_ready(Duration::from_secs(20)).map_err(|e| stage.with_logs(e))?;
    println!("{} is master", first.name());

    let _echo = Echo::start(stage.lab.host(), topology::ECHO_PORT)?;
    let client = stage.client(options.client)?;
    let cut = stage.round("link-cut", "The master's link is cut", Stage::cut)?;
    stage.heal()?;
    let handover = stage.round("handover", "Handover to the other gateway", Stage::hand_over)?;
    let end = client.endpoint()?;
    ensure!(
        end == topology::endpoint(end.is_ipv6()),
        "the client's endpoint is {end}, not the floating IP"
    );

    println!("link cut: {cut}\nhandover: {handover}");
    ensure!(cut.outage.is_some() && handover.outage.is_some(), "the tunnel did not come back");
    Ok(())
}

impl Stage {
    fn client(&self, kind: Option<WgKind>) -> Result<WgPeer> {
        let node = self.lab.client_node(1);
        let kind = kind.map_or_else(|| WgKind::choose(node), Ok)?;
        let client = WgPeer::start(node, kind, &self.lab.client_conf(1, false, 0))?;
        for (name, address) in
            [("wg0 of the gateway", topology::wg_gateway()), ("the host behind", topology::host())]
        {
            let (each, bound) = (Duration::from_secs(1), Duration::from_secs(6));
            let rtt = netns_lab::reach(node, address.v4.into(), each, bound)
                .with_context(|| format!("client1 to {name} through the tunnel"))
                .map_err(|e| self.with_logs(e))?;
            println!(
                "ping through the tunnel ({kind} client) to {name}: {:.1} ms",
                rtt.as_secs_f64() * 1e3
            );
        }
        Ok(client)
    }

    /// Probes the tunnel around `fault` and prints what happened.
    fn round(
        &self,
        file: &str,
        title: &str,
        fault: fn(&Self, &Node) -> Result<Event>,
    ) -> Result<Outage> {
        println!("\n== {title}");
        let master =
            self.cluster.wait_master(Duration::from_secs(20)).map_err(|e| self.with_logs(e))?;
        self.lab.warm_neighbours();
        let to = SocketAddr::from((topology::host().v4, topology::ECHO_PORT));
        let prober = Prober::start(self.lab.client_node(1), to, Duration::from_millis(1))?;
        let start = realtime_ns();
        thread::sleep(QUIET);
        let event = fault(self, &master)?;
        prober.wait_steady(realtime_ns(), SETTLE, PATIENCE).map_err(|e| self.with_logs(e))?;
        let until = realtime_ns();
        // As long again in peace, for the noise floor.
        if until - event.at > event.at - start {
            thread::sleep(Duration::from_nanos(until - event.at) + Duration::from_millis(100));
        }
        let probes = prober.stop();
        let outage =
            probes.outage(event.at, until).context("no probe was answered before the fault")?;
        let mut line = Timeline::default();
        line.add(self.watch.events());
        line.add(self.cluster.events());
        let zero = event.at;
        line.add([event]);
        line.add(outage.first_after.map(|at| Event {
            at,
            node: "client1".into(),
            what: "first probe answered again".into(),
        }));
        // Around the outage, not the quiet after it.
        let from = outage.last_before.min(zero).saturating_sub(500_000_000);
        let to = outage.first_after.unwrap_or(until).max(zero) + 1_000_000_000;
        print!("{}", line.text(zero, from, to));
        println!("{outage}");
        if let (Some(rtt), Some(late)) = (probes.round_trips(), probes.lateness()) {
            println!("round trips: {rtt}\nsender late: {late}");
        }
        let events = line.between(from, to);
        let picture = Picture {
            title,
            probes: &probes,
            events: &events,
            outage: Some(outage),
            zero,
            from,
            until: to,
        };
        let path = self.out.join(format!("{file}.svg"));
        std::fs::write(&path, picture.svg())?;
        println!("picture: {}", path.display());
        if outage.outage.is_none_or(|outage| outage > STRANGE) {
            println!("this is longer than it should be{}", super::logs(&self.lab));
        }
        Ok(outage)
    }

    fn cut(&self, master: &Node) -> Result<Event> {
        let event = Event::now("lab", format!("cuts the links of {}", master.name()));
        self.lab.cut_link(master, true)?;
        Ok(event)
    }

    fn hand_over(&self, master: &Node) -> Result<Event> {
        let event = Event::now("lab", format!("wgha handover on {}", master.name()));
        self.cluster.command(master, &["handover"]).map_err(|e| self.with_logs(e))?;
        Ok(event)
    }

    fn heal(&self) -> Result<()> {
        self.lab.heal_all()?;
        let healed = self.cluster.wait_ready(Duration::from_secs(30));
        healed.context("after the link was healed").map_err(|e| self.with_logs(e))?;
        println!("the link is healed, both gateways are ready");
        Ok(())
    }

    fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        super::with_logs(&self.lab, error).context("the demonstration failed")
    }
}
