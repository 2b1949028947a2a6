//! A page for browsers, complete in one file: no script, and nothing is fetched.

use std::fmt::Write;

use ecq_convert::analyze::projection::Projection;
use ecq_convert::analyze::schemes::COMMON;
use ecq_convert::analyze::{Analysis, Pooled};

use super::{Report, count, lossless, prediction, svg, tensors, tokens, verdict};
use crate::output::sqnr;

const STYLE: &str = include_str!("style.css");

/// Text for the page. Names come from files: what they say must stay text.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
pub fn page(report: &Report) -> String {
    let a = &report.analysis;
    let name = escaped(&a.model);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{name}: what entropy coding is worth</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    let _ = writeln!(page, "<h1>{name}</h1>");
    let left_out = match a.left_out.len() {
        0 => String::new(),
        n => format!(", {n} left out"),
    };
    let _ = writeln!(
        page,
        "<p class=\"sub\">{} weights of {:.2} bits in {} tensors; {} tensors are stored as they are{left_out}. Made by \
         <code>ecq analyze</code> {}.</p>",
        count(a.pooled.weights),
        a.pooled.source_bits,
        a.tensors.len(),
        a.plain.len(),
        env!("CARGO_PKG_VERSION")
    );
    if a.tensors.is_empty() {
        page += "<p>No tensor can be coded.</p>\n";
    } else {
        tiles(&mut page, &a.pooled);
        plot(&mut page, &a.pooled);
        schemes(&mut page, &a.pooled);
        layers(&mut page, a);
        more(&mut page, &a.pooled);
    }
    if let Some(projection) = &report.projection {
        project(&mut page, projection);
    }
    if !a.tensors.is_empty() {
        tensors::table(&mut page, a);
        tensors::details(&mut page, a);
    }
    page + "</main>\n</body>\n</html>\n"
}

/// The figures that matter first, and the sentence on a single minimum and maximum.
fn tiles(page: &mut String, pooled: &Pooled) {
    if let Some(s) = pooled.scheme(&COMMON.to_string())
        && let (Some(db), Some(ecq)) = (s.sqnr_db, s.ecq_bits)
    {
        let _ = writeln!(page, "<h2>At the error of {} ({db:.1} dB)</h2><div class=\"tiles\">", s.scheme);
        for (number, what, class) in
            [(s.stored_bits, "bits a weight, plain", ""), (s.bits, "entropy coded", ""), (ecq, "ecq", " ecq")]
        {
            let _ = writeln!(page, "<div class=\"tile{class}\"><b>{number:.2}</b><span>{what}</span></div>");
        }
        page.push_str("</div>\n");
    }
    if let Some(text) = verdict(pooled) {
        let _ = writeln!(page, "<p class=\"verdict\">{}</p>", escaped(&text));
    }
}

fn plot(page: &mut String, pooled: &Pooled) {
    let (whole, crowd) = (svg::Window::whole(pooled), svg::Window::crowd(pooled));
    page.push_str("<h2>Rate and distortion</h2>\n<figure>");
    for wide in [true, false] {
        page.push_str(&svg::rate_distortion(pooled, wide, whole, crowd));
    }
    if let Some(crowd) = crowd {
        page.push_str("<figcaption>Around 4 bits:</figcaption>");
        for wide in [true, false] {
            page.push_str(&svg::rate_distortion(pooled, wide, crowd, None));
        }
    }
    page.push_str(
        "<figcaption><ul class=\"legend\"><li><svg viewBox=\"0 0 22 12\"><path class=\"curve\" d=\"M1 6H21\"/></svg>\
         ecq</li><li><svg viewBox=\"0 0 22 12\"><path class=\"bound\" d=\"M1 6H21\"/></svg>bound for Gaussian weights, \
         6.02 dB a bit</li>",
    );
    for (letter, s) in svg::lettered(pooled) {
        let sign = svg::mark(svg::family(&s.scheme), 11.0, 6.0, false);
        let name = escaped(&s.scheme);
        let _ = write!(page, "<li><svg viewBox=\"0 0 22 12\">{sign}</svg><b>{letter}</b> {name}</li>");
    }
    page.push_str(
        "</ul>Filled: entropy coded; hollow: as it is stored otherwise. Up and to the left is better.</figcaption></figure>\n",
    );
}

/// A table cell with a number.
pub fn cell(number: Option<f64>, digits: usize) -> String {
    number.map_or("<td>–</td>".into(), |n| format!("<td>{n:.digits$}</td>"))
}

/// The heads of columns.
pub fn heads(names: &[&str]) -> String {
    let all: String = names.iter().map(|n| format!("<th>{n}</th>")).collect();
    format!("<thead><tr>{all}</tr></thead>")
}

fn schemes(page: &mut String, pooled: &Pooled) {
    page.push_str("<h2>Schemes</h2>\n<div class=\"scroll\"><table>");
    page.push_str(&heads(&[
        "scheme",
        "plain bits",
        "coded bits",
        "entropy",
        "scales",
        "SQNR dB",
        "ecq bits",
        "saved",
        "ecq dB",
        "gained",
    ]));
    page.push_str("<tbody>\n");
    for s in &pooled.schemes {
        let class = if s.scheme.starts_with("ecq") { " class=\"ecq\"" } else { "" };
        let _ = write!(page, "<tr{class}><th>{}</th>", escaped(&s.scheme));
        let rates = [s.stored_bits, s.bits, s.entropy, s.scale_bits].map(|n| cell(Some(n), 3));
        let sqnr = sqnr(s.sqnr_db);
        let [bits, saved] = [s.ecq_bits, s.bits_saved].map(|n| cell(n, 3));
        let [db, gained] = [s.ecq_sqnr_db, s.db_gained].map(|n| cell(n, 2));
        let _ = writeln!(page, "{}<td>{sqnr}</td>{bits}{saved}{db}{gained}</tr>", rates.concat());
    }
    page.push_str(
        "</tbody></table></div>\n<p class=\"note\">Bits are per weight. Coded: with scales, tables, tile index and start \
         states. ecq bits: its rate at the error of the row; ecq dB: its SQNR at the coded bits of the row. A rate means \
         nothing without the error beside it.</p>\n",
    );
}

fn layers(page: &mut String, a: &Analysis) {
    let _ = write!(page, "<h2>Layer by layer, at the error of {COMMON}</h2>\n<figure>");
    page.push_str(&svg::layers(a, true));
    page.push_str(&svg::layers(a, false));
    let _ = writeln!(
        page,
        "<figcaption><ul class=\"legend\"><li><svg viewBox=\"0 0 22 12\"><path class=\"bars ecq\" d=\"M4 1h14v10h-14z\"/>\
         </svg>ecq</li><li><svg viewBox=\"0 0 22 12\"><path class=\"dashes absmax\" d=\"M3 6H19\"/></svg>{COMMON}, \
         coded</li></ul></figcaption></figure>"
    );
}

fn more(page: &mut String, pooled: &Pooled) {
    page.push_str("<h2>Without loss, and with prediction</h2>\n");
    for text in lossless(pooled).into_iter().chain([prediction(pooled)]) {
        let _ = writeln!(page, "<p>{}</p>", escaped(&text));
    }
}

fn project(page: &mut String, p: &Projection) {
    let _ = writeln!(
        page,
        "<h2>Projection: tokens a second</h2>\n<p>Not measured. {}, {:.1} GB/s.</p>\n<div class=\"scroll\"><table>{}<tbody>",
        escaped(&p.bandwidth_of),
        p.bytes_per_second / 1e9,
        heads(&["weights held as", "bits a weight", "MB a token", "tokens/s (projection)", "SQNR dB"])
    );
    for row in &p.rows {
        let sqnr = sqnr(row.sqnr_db);
        let _ = writeln!(
            page,
            "<tr><th>{}</th><td>{:.3}</td><td>{:.2}</td><td>{}</td><td>{sqnr}</td></tr>",
            escaped(&row.way),
            row.bits,
            row.bytes_per_token / 1e6,
            tokens(row.tokens_per_second)
        );
    }
    page.push_str("</tbody></table></div>\n<p class=\"note\">It assumes:</p><ul class=\"note\">");
    for text in &p.assumptions {
        let _ = write!(page, "<li>{}</li>", escaped(text));
    }
    if let Some(name) = &p.tied {
        let _ = write!(page, "<li><code>{}</code> is the output matrix as well</li>", escaped(name));
    }
    if !p.looked_up.is_empty() {
        let names: Vec<_> = p.looked_up.iter().map(|n| format!("<code>{}</code>", escaped(n))).collect();
        let _ = write!(page, "<li>only looked up, not counted: {}</li>", names.join(", "));
    }
    page.push_str("</ul>\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_in_a_name_stays_markup() {
        let name = "<script>alert('x')</script>&\"\u{0}\u{1b}\n模";
        let expected = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}\u{fffd}\u{fffd}模";
        assert_eq!(super::escaped(name), expected);
    }
}
