//! Round trips over time as a picture, with the transitions marked.

use std::fmt::Write as _;

use crate::report::{Outage, Probes};
use crate::timeline::Event;

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const PLOT: f64 = WIDTH - LEFT - RIGHT;
/// Height of the plot of round trips.
const HEIGHT: f64 = 220.0;
/// Between two labels of transitions.
const LABEL: f64 = 17.0;
const TOP: f64 = 60.0;

/// What to draw.
pub struct Picture<'a> {
    /// Above the picture.
    pub title: &'a str,
    /// The measurements.
    pub probes: &'a Probes,
    /// Marked with lines and labels.
    pub events: &'a [Event],
    /// The shaded time.
    pub outage: Option<Outage>,
    /// Zero of the time axis, CLOCK_REALTIME in ns.
    pub zero: u64,
    /// Start of the window.
    pub from: u64,
    /// End of the window.
    pub until: u64,
}

impl Picture<'_> {
    /// The SVG file.
    pub fn svg(&self) -> String {
        let labels = self.events.len() as f64 * LABEL;
        let axis = TOP + HEIGHT;
        let total = axis + 50.0 + labels + 20.0;
        let mut s = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" width=\"{WIDTH}\" height=\"{total}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"17\" font-weight=\"bold\">{}</text>\n",
            escape(self.title)
        );
        self.shade(&mut s);
        self.axes(&mut s, axis);
        self.round_trips(&mut s, axis);
        self.transitions(&mut s, axis);
        s + "</svg>\n"
    }

    fn x(&self, at: u64) -> f64 {
        let span = self.until.saturating_sub(self.from).max(1) as f64;
        LEFT + (at.clamp(self.from, self.until) - self.from) as f64 / span * PLOT
    }

    fn shade(&self, s: &mut String) {
        let Some(outage) = self.outage else { return };
        let (a, b) = (self.x(outage.last_before), self.x(outage.first_after.unwrap_or(self.until)));
        let width = (b - a).max(1.0);
        let _ = writeln!(
            s,
            "<rect x=\"{a:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"#fde4e1\"/>\n\
             <text x=\"{LEFT}\" y=\"45\" fill=\"#b3261e\">{}</text>",
            escape(&outage.to_string())
        );
    }

    fn axes(&self, s: &mut String, axis: f64) {
        let (right, scale) = (LEFT + PLOT, self.scale());
        for step in 0..=4 {
            let share = f64::from(step) / 4.0;
            let y = axis - share * HEIGHT;
            let _ = writeln!(
                s,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{:.1}</text>",
                LEFT - 6.0,
                y + 4.0,
                share * scale
            );
        }
        let _ = writeln!(
            s,
            "<text x=\"14\" y=\"{}\" fill=\"#555555\" transform=\"rotate(-90 14 {})\" text-anchor=\"middle\">round trip, ms</text>",
            axis - HEIGHT / 2.0,
            axis - HEIGHT / 2.0
        );
        let step = self.tick();
        let (from, until) = (self.seconds(self.from), self.seconds(self.until));
        let mut at = (from / step).ceil() * step;
        while at <= until {
            let x = LEFT + (at - from) / (until - from) * PLOT;
            let _ = writeln!(
                s,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{axis}\" y2=\"{}\" stroke=\"#555555\"/>\n\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{} s</text>",
                axis + 5.0,
                axis + 19.0,
                trimmed(at)
            );
            at += step;
        }
    }

    /// One column per pixel: from the smallest to the largest round trip; lost probes in red at the foot.
    fn round_trips(&self, s: &mut String, axis: f64) {
        let scale = self.scale();
        let mut columns: Vec<(f64, f64, bool)> = vec![(f64::MAX, 0.0, false); PLOT as usize + 1];
        for probe in
            self.probes.probes.iter().filter(|p| (self.from..=self.until).contains(&p.sent))
        {
            let Some(column) = columns.get_mut((self.x(probe.sent) - LEFT) as usize) else {
                continue;
            };
            match probe.received {
                Some(received) => {
                    let ms = received.saturating_sub(probe.sent) as f64 / 1e6;
                    *column = (column.0.min(ms), column.1.max(ms), column.2);
                }
                None => column.2 = true,
            }
        }
        let y = |ms: f64| axis - (ms / scale).min(1.0) * HEIGHT;
        let (mut good, mut lost) = (String::new(), String::new());
        for (number, (low, high, missing)) in columns.into_iter().enumerate() {
            let x = LEFT + number as f64 + 0.5;
            if low <= high {
                let _ = write!(good, "M{x} {:.1}V{:.1}", y(low) + 1.0, y(high) - 1.0);
            }
            if missing {
                let _ = write!(lost, "M{x} {axis}v-6");
            }
        }
        let _ = writeln!(
            s,
            "<path d=\"{good}\" stroke=\"#1a5fb4\" fill=\"none\"/>\n<path d=\"{lost}\" stroke=\"#d93025\" fill=\"none\"/>"
        );
    }

    /// All lines first, so that none crosses a label; labels have a white edge.
    fn transitions(&self, s: &mut String, axis: f64) {
        let mut labels = String::new();
        for (number, event) in self.events.iter().enumerate() {
            let (x, y) = (self.x(event.at), axis + 46.0 + number as f64 * LABEL);
            let colour = if event.node == "lab" { "#b3261e" } else { "#2e7d32" };
            // Labels stay inside: those right of the middle stand left of their line.
            let right = x > LEFT + PLOT / 2.0;
            let (anchor, text_x) = if right { ("end", x - 5.0) } else { ("start", x + 5.0) };
            let _ = writeln!(
                s,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"0.8\" stroke-dasharray=\"4 3\"/>"
            );
            let _ = writeln!(
                labels,
                "<text x=\"{text_x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" \
                 stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\">{:+.3} s  {}: {}</text>",
                self.seconds(event.at),
                escape(&event.node),
                escape(&event.what)
            );
        }
        s.push_str(&labels);
    }

    fn seconds(&self, at: u64) -> f64 {
        (at as f64 - self.zero as f64) / 1e9
    }

    /// Milliseconds at the top: a round figure above 99 of 100 round trips in the window; the rest is cut off.
    fn scale(&self) -> f64 {
        let window =
            self.probes.probes.iter().filter(|p| (self.from..=self.until).contains(&p.sent));
        let probes = Probes { probes: window.copied().collect() };
        let p99 = probes.round_trips().map_or(1.0, |p| p.p99 as f64 / 1e6);
        let round = [1.0, 2.0, 4.0, 8.0, 20.0, 40.0, 100.0, 200.0];
        round.into_iter().find(|&s| s >= p99 * 1.5).unwrap_or(1000.0)
    }

    /// Seconds between marks: about ten of them.
    fn tick(&self) -> f64 {
        let span = self.seconds(self.until) - self.seconds(self.from);
        [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0].into_iter().find(|&s| span / s <= 14.0).unwrap_or(30.0)
    }
}

fn trimmed(at: f64) -> String {
    format!("{:.1}", at + 0.0).trim_end_matches(".0").to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Probe;

    #[test]
    fn the_picture_shows_loss_outage_and_escaped_labels() {
        let ms = 1_000_000;
        let one = |t: u64| Probe {
            sent: t * ms,
            lateness_ns: 0,
            received: (!(400..600).contains(&t)).then_some((t + 1) * ms),
        };
        let probes = Probes { probes: (0..1000).map(one).collect() };
        let events = [Event { at: 400 * ms, node: "lab".into(), what: "a <cut> & more".into() }];
        let outage = probes.outage(400 * ms, 999 * ms);
        let picture = Picture {
            title: "t",
            probes: &probes,
            events: &events,
            outage,
            zero: 400 * ms,
            from: 0,
            until: 999 * ms,
        };
        let svg = picture.svg();
        assert!(
            svg.contains("a &lt;cut&gt; &amp; more") && svg.contains("outage 201.0 ms"),
            "{svg}"
        );
        assert!(svg.contains("stroke=\"#d93025\"") && svg.contains("+0.000 s"));
        assert!(svg.len() < 100_000);
    }
}
