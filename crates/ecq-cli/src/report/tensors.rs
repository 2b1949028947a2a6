//! The page's part on single tensors: a table of all, and what opens below it.

use std::fmt::Write;

use ecq_convert::analyze::schemes::COMMON;
use ecq_convert::analyze::{Analysis, TensorAnalysis};

use super::html::{cell, escaped, heads};
use super::{count, svg};
use crate::output::{shape, sqnr};

/// A row for each tensor.
pub fn table(page: &mut String, a: &Analysis) {
    page.push_str("<h2>Tensors</h2>\n<div class=\"scroll tall\"><table>");
    page.push_str(&heads(&[
        "tensor",
        "shape",
        "type",
        "max / rms",
        "beyond 6 rms / 10^6",
        "kurtosis",
        "weights",
        "ecq bits",
        "saved",
        "dB gained",
    ]));
    page.push_str("<tbody>\n");
    for t in &a.tensors {
        let (s, common) = (&t.statistics, t.scheme(&COMMON.to_string()));
        let _ = writeln!(
            page,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{:.1}</td><td>{:.0}</td><td>{:.1}</td><td class=\"small\">{}</td>{}{}{}</tr>",
            escaped(&t.name),
            shape(&t.shape),
            escaped(&t.dtype),
            s.max_over_rms,
            1e6 * s.outliers,
            s.kurtosis,
            svg::histogram(&s.histogram, "plain"),
            cell(common.and_then(|s| s.ecq_bits), 3),
            cell(common.and_then(|s| s.bits_saved), 3),
            cell(common.and_then(|s| s.db_gained), 2)
        );
    }
    let _ = writeln!(
        page,
        "</tbody></table></div>\n<p class=\"note\">ecq bits, saved: at the error of {COMMON}; dB gained: at its coded bits. \
         weights: from -4 to 4 rms.</p>"
    );
}

/// Histograms and schemes of each tensor, closed.
pub fn details(page: &mut String, a: &Analysis) {
    page.push_str("<h2>Each tensor</h2>\n");
    for t in &a.tensors {
        let _ = writeln!(
            page,
            "<details><summary>{} <span>{} weights</span></summary>",
            escaped(&t.name),
            count(t.weights)
        );
        histograms(page, t);
        schemes(page, t);
        page.push_str("</details>\n");
    }
}

fn histograms(page: &mut String, t: &TensorAnalysis) {
    page.push_str("<div class=\"hists\">");
    let mut add = |shares: &[f64], class: &str, caption: String| {
        let _ = write!(
            page,
            "<figure>{}<figcaption>{caption}</figcaption></figure>",
            svg::histogram(shares, class)
        );
    };
    add(&t.statistics.histogram, "plain", "weights, -4 to 4 rms".into());
    for (name, class) in [
        ("lossless", "plain"),
        ("affine4 tensor", "affine"),
        (&*COMMON.to_string(), "absmax"),
        ("ecq 3.5", "ecq"),
    ] {
        if let Some(s) = t.scheme(name).filter(|s| !s.histogram.is_empty()) {
            add(&s.histogram, class, format!("{}: levels {} to {}", escaped(name), s.levels.0, s.levels.1));
        }
    }
    page.push_str("</div>\n");
    let p = &t.prediction;
    let _ = write!(
        page,
        "<p class=\"note\">8-bit levels a row: entropy {:.3}, differences to the left {:.3}, up {:.3}, planar {:.3}.",
        p.none, p.left, p.up, p.planar
    );
    if let Some(f) = &t.floats {
        let _ = write!(
            page,
            " Exponents {:.3} bits, sign and mantissa {:.3}.",
            f.exponent_entropy, f.rest_entropy
        );
    }
    if let Some(b) = &t.blocks {
        for n in &b.numbers {
            let _ = write!(
                page,
                " {} {}, {} values, {:.3} bits of entropy.",
                n.count, n.what, n.distinct, n.entropy
            );
        }
        let _ = write!(page, " Coded {:.3} bits a number ({:+.3}).", b.number_bits, b.number_excess);
    }
    page.push_str("</p>\n");
}

fn schemes(page: &mut String, t: &TensorAnalysis) {
    page.push_str("<div class=\"scroll\"><table>");
    page.push_str(&heads(&["scheme", "coded bits", "entropy", "SQNR dB", "max error", "ecq bits", "ecq dB"]));
    page.push_str("<tbody>");
    for s in &t.schemes {
        let sqnr = sqnr(s.sqnr_db);
        let _ = write!(
            page,
            "<tr><th>{}</th>{}{}<td>{sqnr}</td><td>{:.1e}</td>{}{}</tr>",
            escaped(&s.scheme),
            cell(Some(s.bits), 3),
            cell(Some(s.entropy), 3),
            s.max_error,
            cell(s.ecq_bits, 3),
            cell(s.ecq_sqnr_db, 2)
        );
    }
    page.push_str("</tbody></table></div>\n");
}
