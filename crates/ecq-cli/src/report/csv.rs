//! A row for each tensor and scheme.

use std::io::Write;

use anyhow::Result;
use ecq_convert::analyze::Analysis;

const HEADER: &str = "tensor,type,shape,weights,source_bits,scheme,stored_bits,entropy,bits,scale_bits,sqnr_db,max_error,\
                      escapes,ecq_bits,bits_saved,ecq_sqnr_db,db_gained";

/// Writes the table, with lines that end as RFC 4180 says.
pub fn write(out: &mut dyn Write, analysis: &Analysis) -> Result<()> {
    write!(out, "{HEADER}\r\n")?;
    for t in &analysis.tensors {
        let shape: Vec<_> = t.shape.iter().map(u64::to_string).collect();
        let (name, dtype, shape) = (field(&t.name), field(&t.dtype), shape.join("x"));
        for s in &t.schemes {
            write!(out, "{name},{dtype},{shape},{},{},{},", t.weights, t.source_bits, field(&s.scheme))?;
            write!(out, "{},{},{},{},", s.stored_bits, s.entropy, s.bits, s.scale_bits)?;
            write!(out, "{},{},{},", number(s.sqnr_db), s.max_error, s.escapes)?;
            let compared = [s.ecq_bits, s.bits_saved, s.ecq_sqnr_db, s.db_gained].map(number);
            write!(out, "{}\r\n", compared.join(","))?;
        }
    }
    Ok(())
}

/// Empty where there is none.
fn number(number: Option<f64>) -> String {
    number.map_or_else(String::new, |n| n.to_string())
}

/// In quotes where it must be.
fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
