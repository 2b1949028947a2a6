//! Memory bandwidths: typed, or published for a chip.

use std::fmt::Write;
use std::ops::RangeInclusive;

/// Name, and published peak bandwidth of its memory in 10^9 bytes a second.
const CHIPS: [(&str, f64); 35] = [
    ("M1", 68.3),
    ("M1 Pro", 200.0),
    ("M1 Max", 400.0),
    ("M1 Ultra", 800.0),
    ("M2", 100.0),
    ("M2 Pro", 200.0),
    ("M2 Max", 400.0),
    ("M2 Ultra", 800.0),
    ("M3", 100.0),
    ("M3 Pro", 150.0),
    ("M3 Max 30-core GPU", 300.0),
    ("M3 Max 40-core GPU", 400.0),
    ("M3 Ultra", 819.0),
    ("M4", 120.0),
    ("M4 Pro", 273.0),
    ("M4 Max 32-core GPU", 410.0),
    ("M4 Max 40-core GPU", 546.0),
    ("RTX 3060 12GB", 360.0),
    ("RTX 3090", 936.0),
    ("RTX 4060", 272.0),
    ("RTX 4070", 504.0),
    ("RTX 4090", 1008.0),
    ("RTX 5090", 1792.0),
    ("RX 7900 XTX", 960.0),
    ("A100 40GB", 1555.0),
    ("A100 80GB SXM", 2039.0),
    ("H100 PCIe", 2000.0),
    ("H100 SXM", 3350.0),
    ("H200", 4800.0),
    ("Ryzen AI Max 395", 256.0),
    ("Snapdragon X Elite", 135.0),
    ("DDR4-3200 dual channel", 51.2),
    ("DDR5-5600 dual channel", 89.6),
    ("EPYC 9004", 460.8),
    ("Raspberry Pi 5", 17.1),
];

/// Bandwidths that make sense, in bytes a second.
const RANGE: RangeInclusive<f64> = 1e6..=1e15;

/// What `--bandwidth` or `--chip` names.
#[derive(Clone, Debug, PartialEq)]
pub enum Memory {
    /// A bandwidth in bytes a second, and where it is from.
    Rate { of: String, bytes_per_second: f64 },
    /// The table of chips is asked for.
    List,
}

impl Memory {
    /// Reads a number with a unit such as `GB/s`.
    pub fn bandwidth(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim());
        let number: f64 = number.parse().map_err(|_| "expected a number and a unit, such as 150GB/s")?;
        let scale = match unit {
            "MB/s" => 1e6,
            "GB/s" => 1e9,
            "TB/s" => 1e12,
            "MiB/s" => 1024f64.powi(2),
            "GiB/s" => 1024f64.powi(3),
            "TiB/s" => 1024f64.powi(4),
            "" => return Err("the unit is missing: write MB/s, GB/s or TB/s behind the number".into()),
            _ => {
                return Err(format!(
                    "unit {unit:?}: expected MB/s, GB/s, TB/s, MiB/s, GiB/s or TiB/s (bytes)"
                ));
            }
        };
        let bytes_per_second = number * scale;
        if !RANGE.contains(&bytes_per_second) {
            return Err("expected 1 MB/s to 1000 TB/s".into());
        }
        Ok(Self::Rate { of: format!("{number} {unit}"), bytes_per_second })
    }

    /// Looks a chip up; spaces, dashes and case do not matter.
    pub fn chip(name: &str) -> Result<Self, String> {
        let key =
            |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let wanted = key(name);
        if wanted == "list" {
            return Ok(Self::List);
        }
        let Some(&(name, rate)) = CHIPS.iter().find(|c| key(c.0) == wanted) else {
            let near: Vec<_> =
                CHIPS.iter().filter(|c| !wanted.is_empty() && key(c.0).starts_with(&wanted)).collect();
            let shown: Vec<_> = if near.is_empty() { CHIPS.iter().collect() } else { near };
            let names: Vec<_> = shown.iter().map(|c| c.0).collect();
            return Err(format!("no such chip here; there are: {}. Others: --bandwidth", names.join(", ")));
        };
        Ok(Self::Rate { of: name.into(), bytes_per_second: rate * 1e9 })
    }

    /// The table of chips.
    pub fn list() -> String {
        let mut table = String::from("chip                     published memory bandwidth, GB/s\n");
        for (name, rate) in CHIPS {
            let _ = writeln!(table, "{name:<24} {rate:>7.1}");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_need_a_number_a_unit_and_sense() {
        let rate = |text| match Memory::bandwidth(text) {
            Ok(Memory::Rate { bytes_per_second, .. }) => Some(bytes_per_second),
            _ => None,
        };
        assert_eq!(rate("150GB/s"), Some(150e9));
        assert_eq!(rate(" 3.35 TB/s "), Some(3.35e12));
        assert_eq!(rate("1GiB/s"), Some(1024f64.powi(3)));
        for text in [
            "",
            "150",
            "GB/s",
            "-1GB/s",
            "0GB/s",
            "1.2.3GB/s",
            "1e3GB/s",
            "150Gb/s",
            "150GB",
            "2000TB/s",
            "NaNGB/s",
            "infGB/s",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn every_chip_is_found_by_its_name() {
        for (name, rate) in CHIPS {
            let found = Memory::chip(&name.replace(' ', "-").to_uppercase()).unwrap();
            assert_eq!(found, Memory::Rate { of: name.into(), bytes_per_second: rate * 1e9 });
            assert!(Memory::list().contains(name));
        }
        assert_eq!(Memory::chip("list"), Ok(Memory::List));
        assert!(Memory::chip("Z80").unwrap_err().contains("RTX 4090"));
        let near = Memory::chip("m4max").unwrap_err();
        assert!(near.contains("M4 Max 40-core GPU") && !near.contains("RTX"), "{near}");
    }
}
