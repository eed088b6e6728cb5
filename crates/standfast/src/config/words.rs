//! A command line parted into words as a shell does it, without anything else that a shell does.

/// `Err`: why it can't be parted.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words: Vec<String> = Vec::new();
    let (mut open, mut quote) = (false, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let taken = match (c, quote) {
            (c, Some(q)) if c == q => {
                quote = None;
                continue;
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                None
            }
            ('\\', None | Some('"')) => Some(chars.next().ok_or("ends in a backslash")?),
            (c, None) if c.is_whitespace() => {
                open = false;
                continue;
            }
            (c, _) => Some(c),
        };
        if !open {
            words.push(String::new());
            open = true;
        }
        if let Some(word) = words.last_mut() {
            word.extend(taken);
        }
    }
    match quote {
        Some(_) => Err("a quote is not closed"),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_shells() {
        for (text, words) in [
            ("/bin/tell", vec!["/bin/tell"]),
            (" a  'b c' \"d e\"f ", vec!["a", "b c", "d ef"]),
            (r#"a\ b "c\"d" 'e\f'"#, vec!["a b", "c\"d", "e\\f"]),
            ("a ''", vec!["a", ""]),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert_eq!(split("a 'b"), Err("a quote is not closed"));
        assert_eq!(split("a \\"), Err("ends in a backslash"));
    }
}
