//! The lines that differ between two texts, with three around them, in the unified form.

use std::fmt::Write as _;

const AROUND: usize = 3;

/// One line of the way from one text to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Empty when nothing differs. The headers name no files.
pub(super) fn unified(before: &str, after: &str) -> String {
    let before: Vec<&str> = before.lines().collect();
    let after: Vec<&str> = after.lines().collect();
    let steps = steps(&before, &after);
    let changed: Vec<usize> = (0..steps.len())
        .filter(|index| !matches!(steps[*index], Step::Same(_)))
        .collect();
    let mut text = String::new();
    let mut rest = changed.as_slice();
    while let Some(first) = rest.first() {
        // Changes whose surroundings touch are one hunk.
        let near = rest
            .windows(2)
            .take_while(|pair| pair[1] - pair[0] <= 2 * AROUND + 1);
        let count = near.count() + 1;
        let start = first.saturating_sub(AROUND);
        let end = (rest[count - 1] + AROUND + 1).min(steps.len());
        rest = &rest[count..];
        if text.is_empty() {
            text.push_str("--- \n+++ \n");
        }
        hunk(&mut text, &steps, start, end);
    }
    text
}

fn hunk(text: &mut String, steps: &[Step<'_>], start: usize, end: usize) {
    let old = |steps: &[Step<'_>]| {
        steps
            .iter()
            .filter(|it| !matches!(it, Step::New(_)))
            .count()
    };
    let new = |steps: &[Step<'_>]| {
        steps
            .iter()
            .filter(|it| !matches!(it, Step::Gone(_)))
            .count()
    };
    let part = &steps[start..end];
    let range = |before: usize, length: usize| match length {
        1 => format!("{}", before + 1),
        0 => format!("{before},0"),
        _ => format!("{},{length}", before + 1),
    };
    let (left, right) = (
        range(old(&steps[..start]), old(part)),
        range(new(&steps[..start]), new(part)),
    );
    let _ = writeln!(text, "@@ -{left} +{right} @@");
    for step in part {
        let _ = match step {
            Step::Same(line) => writeln!(text, " {line}"),
            Step::Gone(line) => writeln!(text, "-{line}"),
            Step::New(line) => writeln!(text, "+{line}"),
        };
    }
}

/// By the longest common subsequence; configurations are short.
fn steps<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Step<'a>> {
    let (rows, columns) = (before.len(), after.len());
    let mut longest = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row][column] = if before[row] == after[column] {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut steps) = (0, 0, Vec::new());
    while row < rows || column < columns {
        if row < rows && column < columns && before[row] == after[column] {
            steps.push(Step::Same(before[row]));
            (row, column) = (row + 1, column + 1);
        } else if column == columns
            || (row < rows && longest[row + 1][column] >= longest[row][column + 1])
        {
            steps.push(Step::Gone(before[row]));
            row += 1;
        } else {
            steps.push(Step::New(after[column]));
            column += 1;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_changed_line_stands_among_three() {
        let before = "a: 1\nb: 2\nc: 3\nd: 4\ne: 5\nttl: 30\n";
        let after = before.replace("30", "29");
        expect![[r#"
            --- 
            +++ 
            @@ -3,4 +3,4 @@
             c: 3
             d: 4
             e: 5
            -ttl: 30
            +ttl: 29
        "#]]
        .assert_eq(&unified(before, &after));
    }

    #[test]
    fn far_changes_are_two_hunks_and_none_is_nothing() {
        let before: String = (1..=20).map(|n| format!("l{n}\n")).collect();
        let after = before.replace("l2\n", "").replace("l19\n", "l19\nl19a\n");
        expect![[r#"
            --- 
            +++ 
            @@ -1,5 +1,4 @@
             l1
            -l2
             l3
             l4
             l5
            @@ -17,4 +16,5 @@
             l17
             l18
             l19
            +l19a
             l20
        "#]]
        .assert_eq(&unified(&before, &after));
        assert_eq!(unified(&before, &before), "");
        expect![[r#"
            --- 
            +++ 
            @@ -0,0 +1 @@
            +x
        "#]]
        .assert_eq(&unified("", "x\n"));
    }
}
