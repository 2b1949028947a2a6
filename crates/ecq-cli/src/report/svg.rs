//! Plots as SVG inside the page. Colours and fonts are the style sheet's.

use std::fmt::Write;

use ecq_convert::analyze::curve::DB_PER_BIT;
use ecq_convert::analyze::schemes::{COMMON, SchemeAnalysis};
use ecq_convert::analyze::{Analysis, Pooled};

/// Where a plot's numbers lie on the picture. A unit of a picture is a pixel at its own width.
struct Frame {
    width: f64,
    height: f64,
    x: (f64, f64),
    y: (f64, f64),
}

const LEFT: f64 = 38.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;

impl Frame {
    fn px(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (self.width - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        self.height - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (self.height - TOP - BOTTOM)
    }

    fn open(&self, class: &str, label: &str) -> String {
        let (w, h) = (self.width, self.height);
        format!("<svg class=\"plot {class}\" viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{label}\">")
    }

    /// Horizontal lines with their numbers.
    fn rows(&self, svg: &mut String, step: f64) {
        let mut y = self.y.0;
        while y <= self.y.1 + 1e-9 {
            let (at, right) = (self.py(y), self.width - RIGHT);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
            let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"end\">{y}</text>", LEFT - 5.0, at + 4.0);
            y += step;
        }
    }

    /// Vertical lines with their numbers.
    fn columns(&self, svg: &mut String, step: f64) {
        let mut x = self.x.0;
        while x <= self.x.1 + 1e-9 {
            let (at, bottom) = (self.px(x), self.height - BOTTOM);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" class=\"mid\">{x}</text>", bottom + 15.0);
            x += step;
        }
    }

    fn titles(&self, svg: &mut String, x: &str, y: &str) {
        let (middle, bottom) = ((LEFT + self.width - RIGHT) / 2.0, self.height - 4.0);
        let _ = write!(svg, "<text x=\"{middle}\" y=\"{bottom}\" class=\"mid\">{x}</text>");
        let _ = write!(svg, "<text x=\"{}\" y=\"{}\">{y}</text>", LEFT + 4.0, TOP + 10.0);
    }
}

/// The letter that stands for a scheme in the plot.
pub fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(i @ 0..26) => char::from(b'A' + i).to_string(),
        _ => (index + 1).to_string(),
    }
}

/// The class of a scheme, for colour and shape.
pub fn family(scheme: &str) -> &'static str {
    match scheme.split(' ').next().unwrap_or_default() {
        "affine4" => "affine",
        "absmax4" => "absmax",
        "int8" => "int8",
        "nf4" => "nf4",
        _ => "other",
    }
}

/// Schemes that have a letter: those that are compared with the native one.
pub fn lettered(pooled: &Pooled) -> impl Iterator<Item = (String, &SchemeAnalysis)> {
    let classic = pooled.schemes.iter().filter(|s| s.ecq_bits.is_some() && s.sqnr_db.is_some());
    classic.enumerate().map(|(i, s)| (letter(i), s))
}

/// A sign of a family around a point.
pub fn mark(family: &str, x: f64, y: f64, hollow: bool) -> String {
    let class = if hollow { "hollow" } else { "mark" };
    let d = match family {
        "affine" => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        "absmax" => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", x - 4.0),
        "int8" => format!("M{x:.1} {:.1}l4.5 8h-9z", y - 5.0),
        "nf4" => format!("M{x:.1} {:.1}l4.5 -8h-9z", y + 5.0),
        _ => format!("M{x:.1} {:.1}l4.6 4.6l-4.6 4.6l-4.6 -4.6z", y - 4.6),
    };
    format!("<path class=\"{class} {family}\" d=\"{d}\"/>")
}

/// Places for labels that do not lie on each other or on marks.
#[derive(Default)]
struct Labels {
    taken: Vec<(f64, f64)>,
}

impl Labels {
    const WIDTH: f64 = 9.0;
    const HEIGHT: f64 = 11.0;

    /// A place near a mark; the centre of the label.
    fn place(&mut self, x: f64, y: f64) -> (f64, f64) {
        let near = [(10.0, 6.0), (10.0, -6.0), (-10.0, -6.0), (-10.0, 6.0), (0.0, 13.0), (0.0, -13.0)];
        let far = near.map(|(a, b)| (1.7 * a, 1.7 * b));
        let farther = near.map(|(a, b)| (2.6 * a, 2.6 * b));
        let free = |&(a, b): &(f64, f64)| {
            let clear =
                |t: &(f64, f64)| (x + a - t.0).abs() >= Self::WIDTH || (y + b - t.1).abs() >= Self::HEIGHT;
            self.taken.iter().all(clear)
        };
        let all = near.into_iter().chain(far).chain(farther);
        let (a, b) = all.into_iter().find(free).unwrap_or(near[0]);
        self.taken.push((x + a, y + b));
        (x + a, y + b)
    }
}

/// A part of the plane of rates and SQNR.
#[derive(Clone, Copy, PartialEq)]
pub struct Window {
    x: (f64, f64),
    y: (f64, f64),
    /// Distance of lines.
    step: (f64, f64),
}

impl Window {
    /// All that was measured. A classic scheme can be worse than no weights at all: it lies at 0 dB then.
    pub fn whole(pooled: &Pooled) -> Self {
        let curve = || pooled.curve.points.iter();
        let points = || pooled.schemes.iter().filter_map(|s| Some((s.stored_bits, s.sqnr_db?)));
        let most_bits = points().map(|p| p.0).chain(curve().map(|p| p.bits)).fold(4.0, f64::max);
        let most_db = points().map(|p| p.1).chain(curve().map(|p| p.sqnr_db)).fold(24.0, f64::max);
        // scales take a little more than the 8 bits of the levels: that is no reason for another column
        let x = (0.0, (most_bits - 0.1).ceil());
        Self { x, y: (0.0, (most_db / 6.0).ceil() * 6.0), step: (1.0, 6.0) }
    }

    /// Where the schemes of about 4 bits crowd; `None` if fewer than two do.
    pub fn crowd(pooled: &Pooled) -> Option<Self> {
        let near =
            |s: &&SchemeAnalysis| s.ecq_bits.is_some() && s.stored_bits < 6.0 && s.bits < s.stored_bits;
        let points =
            || pooled.schemes.iter().filter(near).filter_map(|s| Some((s, s.sqnr_db.filter(|&d| d > 9.0)?)));
        let least =
            |of: fn(&(&SchemeAnalysis, f64)) -> f64| points().map(|p| of(&p)).fold(f64::INFINITY, f64::min);
        let most = |of: fn(&(&SchemeAnalysis, f64)) -> f64| points().map(|p| of(&p)).fold(0.0, f64::max);
        let x = (
            ((least(|p| p.0.bits) - 0.3) * 2.0).floor() / 2.0,
            ((most(|p| p.0.stored_bits) + 0.1) * 2.0).ceil() / 2.0,
        );
        let y = (((least(|p| p.1) - 1.0) / 2.0).floor() * 2.0, ((most(|p| p.1) + 2.0) / 2.0).ceil() * 2.0);
        (points().count() > 1).then_some(Self { x, y, step: (0.5, 2.0) })
    }

    fn holds(&self, bits: f64, db: f64) -> bool {
        (self.x.0..=self.x.1).contains(&bits) && (self.y.0..=self.y.1).contains(&db)
    }
}

/// Rate and distortion: the native scheme's curve, the Gaussian bound, the other schemes with and without coding. What
/// lies in `elsewhere` gets no letter.
pub fn rate_distortion(pooled: &Pooled, wide: bool, window: Window, elsewhere: Option<Window>) -> String {
    let (width, height) = if wide { (760.0, 400.0) } else { (358.0, 320.0) };
    let frame = Frame { width, height, x: window.x, y: window.y };
    let mut svg = frame.open(if wide { "wide" } else { "narrow" }, "Rate and distortion of the schemes");
    frame.rows(&mut svg, window.step.1 * if wide || window.step.1 < 6.0 { 1.0 } else { 2.0 });
    frame.columns(&mut svg, window.step.0);
    frame.titles(&mut svg, "bits a weight", "SQNR, dB");
    let (w, h) = (width - LEFT - RIGHT, height - TOP - BOTTOM);
    // a picture in the picture cuts off what leaves the frame
    let _ = write!(
        svg,
        "<svg x=\"{LEFT}\" y=\"{TOP}\" width=\"{w}\" height=\"{h}\" viewBox=\"{LEFT} {TOP} {w} {h}\">"
    );
    let [(x, y), (to_x, to_y)] = [window.x.0, window.x.1].map(|b| (frame.px(b), frame.py(b * DB_PER_BIT)));
    let _ = write!(svg, "<path class=\"bound\" d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\"/>");
    let mut path = String::new();
    for (i, p) in pooled.curve.points.iter().enumerate() {
        let letter = if i == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{:.1} {:.1}", frame.px(p.bits), frame.py(p.sqnr_db));
    }
    let _ = write!(svg, "<path class=\"curve\" d=\"{path}\"/></svg>");
    for p in pooled.curve.points.iter().filter(|p| window.holds(p.bits, p.sqnr_db)) {
        let (x, y) = (frame.px(p.bits), frame.py(p.sqnr_db));
        let _ = write!(svg, "<circle class=\"ecq\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
    }
    marks(&mut svg, &frame, pooled, window, elsewhere);
    svg + "</svg>"
}

fn marks(svg: &mut String, frame: &Frame, pooled: &Pooled, window: Window, elsewhere: Option<Window>) {
    let at = |bits: f64, db: f64| (frame.px(bits.min(frame.x.1)), frame.py(db));
    let mut labels = Labels::default();
    let shown: Vec<_> = lettered(pooled)
        .filter_map(|(letter, s)| {
            let db = s.sqnr_db.unwrap_or_default().max(0.0);
            window.holds(s.bits, db).then(|| (letter, s, at(s.bits, db), at(s.stored_bits, db)))
        })
        .collect();
    for (_, s, coded, stored) in &shown {
        let ((x, y), family) = (*coded, family(&s.scheme));
        labels.taken.extend([*coded, *stored]);
        let _ = write!(svg, "<path class=\"saving {family}\" d=\"M{x:.1} {y:.1}H{:.1}\"/>", stored.0);
        if s.stored_bits < window.x.1 + 0.1 {
            svg.push_str(&mark(family, stored.0, y, true));
        }
    }
    for (letter, s, (x, y), _) in &shown {
        svg.push_str(&mark(family(&s.scheme), *x, *y, false));
        let db = s.sqnr_db.unwrap_or_default();
        if elsewhere.is_some_and(|w| w.holds(s.bits, db)) {
            continue;
        }
        let (x, y) = labels.place(*x, *y);
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"mid label\">{letter}</text>", y + 4.0);
    }
}

/// A bar for each tensor: the native scheme's bits at the error of [`COMMON`], whose coded bits are a dash.
pub fn layers(analysis: &Analysis, wide: bool) -> String {
    let name = COMMON.to_string();
    let found: Vec<_> = analysis.tensors.iter().filter_map(|t| t.scheme(&name)).collect();
    let pairs: Vec<_> = found.iter().filter_map(|s| Some((s.ecq_bits?, s.bits))).collect();
    let (width, height) = if wide { (760.0, 260.0) } else { (358.0, 230.0) };
    let most = pairs.iter().map(|p| p.0.max(p.1)).fold(4.5, f64::max);
    let y = (0.0, most.ceil());
    let frame = Frame { width, height, x: (0.0, pairs.len().max(8) as f64), y };
    let mut svg = frame.open(if wide { "wide" } else { "narrow" }, "Bits of each tensor at equal error");
    frame.rows(&mut svg, 1.0);
    let (mut bars, mut dashes) = (String::new(), String::new());
    for (i, (ecq, common)) in pairs.iter().enumerate() {
        let (from, to) = (frame.px(i as f64 + 0.1), frame.px(i as f64 + 0.9));
        let _ = write!(
            bars,
            "M{from:.1} {:.1}V{:.1}H{to:.1}V{:.1}z",
            frame.py(0.0),
            frame.py(*ecq),
            frame.py(0.0)
        );
        let _ = write!(dashes, "M{from:.1} {:.1}H{to:.1}", frame.py(*common));
    }
    let _ =
        write!(svg, "<path class=\"bars ecq\" d=\"{bars}\"/><path class=\"dashes absmax\" d=\"{dashes}\"/>");
    frame.titles(&mut svg, "tensors, in the order of the file", "bits a weight");
    svg + "</svg>"
}

/// Bars without numbers, as wide as there is room.
pub fn histogram(shares: &[f64], class: &str) -> String {
    let most = shares.iter().fold(0.0, |a: f64, &b| a.max(b)).max(f64::MIN_POSITIVE);
    let mut path = String::new();
    for (i, share) in shares.iter().enumerate().filter(|(_, s)| **s > 0.0) {
        let height = (40.0 * share / most).max(0.6);
        let _ = write!(path, "M{} 40v-{height:.1}h9v{height:.1}z", 10 * i);
    }
    let width = 10 * shares.len().max(1);
    format!(
        "<svg class=\"hist\" viewBox=\"0 0 {width} 40\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <path class=\"{class}\" d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_clear_of_each_other() {
        let mut labels = Labels::default();
        let marks: Vec<_> =
            (0..6).map(|i| (100.0 + 6.0 * f64::from(i), 100.0 + 3.0 * f64::from(i))).collect();
        labels.taken.extend(&marks);
        let placed: Vec<_> = marks.iter().map(|&(x, y)| labels.place(x, y)).collect();
        for (i, a) in placed.iter().enumerate() {
            for b in placed[..i].iter().chain(&marks) {
                assert!(
                    (a.0 - b.0).abs() >= Labels::WIDTH || (a.1 - b.1).abs() >= Labels::HEIGHT,
                    "{a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn letters_go_on_as_numbers() {
        assert_eq!([0, 25, 26].map(letter), ["A", "Z", "27"]);
    }
}
