//! Names of files that come from strangers.

/// Longest name that file systems have.
const LONGEST: usize = 255;
/// Names that are devices on Windows, whatever follows their first dot; two of them also with a digit.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
const NUMBERED: [&str; 2] = ["com", "lpt"];

/// Whether a name stands for a file in a folder itself, on every system that a model may be restored on.
pub(crate) fn is_plain(name: &str) -> bool {
    let odd = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    let plain = !name.is_empty() && name.len() <= LONGEST && !name.contains(odd);
    // Windows drops dots and blanks at the end, so that two names would be one; "." and ".." are among these
    plain && !name.ends_with(['.', ' ']) && !is_device(name)
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let numbered = |device: &str| {
        let mut rest = stem.strip_prefix(device).unwrap_or_default().chars();
        matches!((rest.next(), rest.next()), (Some('0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'), None))
    };
    DEVICES.contains(&&*stem) || NUMBERED.iter().any(|device| numbered(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_in_the_folder() {
        for name in
            ["model-00001-of-00002.safetensors", "con-fig.json", ".hidden", "comet", "com.json", "a b.c"]
        {
            assert!(is_plain(name), "{name:?}");
        }
        for name in ["", ".", "..", "../m", "/m", "a/b", "a\\b", "c:m", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn names_that_windows_takes_for_others_are_not_plain() {
        for name in
            ["CON", "nul.json", "aux.tar.gz", "Com1.safetensors", "lpt9", "con .txt", "a.", "a ", "com\u{b2}"]
        {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
